"""`sddpm distill`: distils a trained model into one that samples in few evaluations."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sddpm.cli.app import app
from sddpm.cli.options import MODEL
from sddpm.cli.train import Device, finish


@app.command()
def distill(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"The teacher, which must predict v. {MODEL}")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder for the run.")],
    evaluations: Annotated[int, typer.Option(help="Network evaluations per sample of the student.", metavar="N")] = 4,
    halve_from: Annotated[
        int | None,
        typer.Option(
            help="Progressive halving: students of N evaluations, N/2, ... in runs OUT-N, ... (default: one stage)",
            metavar="N",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Location of the data. (default: as in the model's config)", metavar="FOLDER|ZIP")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another value of the config, e.g. distill.x0_scale=1.01."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    device: Annotated[Device, typer.Option("--device", help="Where to train.")] = Device.AUTO,
    download: Annotated[bool, typer.Option("--download", help="Download the data if they are missing.")] = False,
) -> None:
    """Train a model that samples in few evaluations the pictures that MODEL samples in many.

    The student starts from MODEL's weights and is trained with MODEL's config. --set changes keys of it: train.steps,
    train.lr, and distill.grid, substeps, order, x0_scale and guidance_scale. sddpm train --out OUT --resume also
    continues a run.
    """
    from sddpm.training import distill as distill_model

    settings = list(overrides or [])
    if data is not None:
        settings.append(f"data.path={json.dumps(data)}")
    if download:
        settings.append("data.download=true")
    finish(
        distill_model(
            model,
            out,
            evaluations=evaluations,
            halve_from=halve_from,
            overrides=settings,
            resume=resume,
            device=device.value,
        )
    )
