"""`sddpm release`: a trained model for others."""

from pathlib import Path
from typing import Annotated

import typer

from sddpm.cli.app import app
from sddpm.cli.options import parse_timesteps


@app.command()
def release(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a training run.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    hardware: Annotated[str, typer.Option(help="What it was trained on, in words.", metavar="TEXT")],
    name: Annotated[str | None, typer.Option(help="What to call it. (default: the name of OUT)")] = None,
    licence: Annotated[
        str, typer.Option("--license", "--licence", help="Of the weights, an SPDX name.", metavar="SPDX")
    ] = "apache-2.0",
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(help="JSON of sddpm evaluate --out, of the released model; may be repeated.", metavar="FILE"),
    ] = None,
    solver: Annotated[str, typer.Option(help="With which it samples unless told otherwise.", metavar="NAME")] = "ddim",
    x0_scale: Annotated[float, typer.Option(help="Factor of the predicted clean image, likewise.", metavar="X")] = 1.0,
    steps: Annotated[int | None, typer.Option(help="Steps of the solver, likewise. (default: the run's own)")] = None,
    timesteps: Annotated[
        str | None, typer.Option(help="Its time steps, likewise, such as 999,850,600.", metavar="LIST")
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="Which named sampler of the run is the default; own: none. (default: the one that is)"),
    ] = None,
    push: Annotated[
        str | None, typer.Option(help="Send it to the Hugging Face hub too, as USER/MODEL.", metavar="USER/MODEL")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Write a trained model for others: half-precision weights, config, 64 samples, and a card that says what it is.

    Release, evaluate what was released (`sddpm evaluate OUT --out FILE`), and release again with --evaluation FILE: the
    card then has the scores, and only of the very weights beside it. --push sends it to the hub, where you must be
    logged in; others draw with it then by `sddpm sample USER/MODEL`.
    """
    from sddpm.files import Output, check_outputs
    from sddpm.pipelines.hub import check_hub_id, send_model
    from sddpm.release import release as write

    if push is not None:
        check_hub_id(push)
    check_outputs([Output(out, folder=("model",))], inputs=[run, *(evaluation or [])], force=force)
    facts = write(
        run,
        out,
        name=name,
        hardware=hardware,
        licence=licence,
        evaluations=evaluation or [],
        solver=solver,
        x0_scale=x0_scale,
        steps=steps,
        timesteps=parse_timesteps(timesteps),
        sampler=sampler,
    )
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    typer.echo(
        f"{out}: {facts.parameters:,} parameters, {size / 1e6:.1f} MB, {len(facts.evaluations)} scores on its card"
    )
    if push is not None:
        typer.echo(f"sent to {send_model(out, push)}")
