"""`sddpm distill`: from a trained model to one that samples in few evaluations."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sddpm.cli.app import app
from sddpm.cli.options import MODEL
from sddpm.cli.train import Device, finish


@app.command()
def distill(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"The teacher, which predicts v. {MODEL}")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder for the run.")],
    evaluations: Annotated[int, typer.Option(help="Evaluations of the student.", metavar="N")] = 4,
    halve_from: Annotated[
        int | None,
        typer.Option(
            help="Progressive halving: students of N evaluations, N/2, ... in runs OUT-N, ... (default: one stage)",
            metavar="N",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Where the data lie. (default: as of the model's config)", metavar="FOLDER|ZIP")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another value of the config, e.g. distill.order=2."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it was interrupted.")] = False,
    device: Annotated[Device, typer.Option("--device", help="Where to train.")] = Device.AUTO,
    download: Annotated[bool, typer.Option("--download", help="Fetch the data if they are missing.")] = False,
) -> None:
    """Train a model that samples in few evaluations what MODEL samples in many.

    It starts from MODEL's weights and trains by MODEL's config, in which --set changes what is given: train.steps,
    train.lr, and distill.grid, substeps, order, x0_scale and guidance_scale. sddpm train --out OUT --resume goes on in
    a run too.
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
