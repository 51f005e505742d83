"""`sddpm release`: prepares a trained model for publication."""

from pathlib import Path
from typing import Annotated

import typer

from sddpm.cli.app import app
from sddpm.cli.options import parse_timesteps


@app.command()
def release(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a training run.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    hardware: Annotated[str, typer.Option(help="The training hardware, in words.", metavar="TEXT")],
    name: Annotated[str | None, typer.Option(help="Name of the model. (default: the name of OUT)")] = None,
    licence: Annotated[
        str, typer.Option("--license", "--licence", help="SPDX name of the weights' licence.", metavar="SPDX")
    ] = "apache-2.0",
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(help="JSON from sddpm evaluate --out, for the released model; can be repeated.", metavar="FILE"),
    ] = None,
    solver: Annotated[str | None, typer.Option(help="The default solver. (default: ddim)", metavar="NAME")] = None,
    x0_scale: Annotated[
        float | None,
        typer.Option(help="The default factor of the predicted clean image. (default: the run's own)", metavar="X"),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="The default number of steps. (default: the run's own)")] = None,
    timesteps: Annotated[
        str | None, typer.Option(help="The default time steps, such as 999,850,600.", metavar="LIST")
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="The named sampler that becomes the default; own: none. (default: the run's default)"),
    ] = None,
    push: Annotated[
        str | None, typer.Option(help="Also upload it to the Hugging Face hub, as USER/MODEL.", metavar="USER/MODEL")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Write a trained model for publication: half-precision weights, config, 64 samples, and a model card.

    Release, evaluate the released model (`sddpm evaluate OUT --out FILE`), and release again with --evaluation FILE.
    The card then has the scores, always of the weights next to it. --push uploads it to the hub, which needs a login;
    others can then use it with `sddpm sample USER/MODEL`.
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
        typer.echo(f"uploaded to {send_model(out, push)}")
