"""`sddpm ema`: averages a run's weights over a length chosen after training."""

from pathlib import Path
from typing import Annotated

import typer

from sddpm.cli.app import app

FAR = 0.1  # relative distance of profiles above which a warning is printed


@app.command()
def ema(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a training run.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder for the model.")],
    length: Annotated[
        float,
        typer.Option(
            help="Length of the average: the standard deviation of its profile relative to all steps, e.g. 0.08.",
            metavar="SIGMA_REL",
        ),
    ],
    step: Annotated[
        int | None, typer.Option(help="Average up to this step. (default: the last one stored)", metavar="N")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Average the weights of a run over any length, after training (post-hoc EMA, EDM2).

    A run with train.ema_power has stored the data for this. For other runs, the weights of the kept checkpoints are
    averaged, as an approximation.
    """
    from sddpm.files import Output, check_outputs
    from sddpm.training.posthoc import posthoc_average

    check_outputs([Output(out, folder=("model",))], inputs=[run], force=force)
    made = posthoc_average(run, out, length, step)
    typer.echo(f"saved {out}: length {length:g} at step {made.step}")
    if made.error is None:
        typer.echo(
            f"this is an approximation from the plain weights of {made.snapshots} checkpoints; see train.ema_power"
        )
    else:
        typer.echo(f"from {made.snapshots} snapshots; relative error of its profile {made.error:.2%}")
        if made.error > FAR:
            typer.echo(
                "warning: the snapshots do not support this length; choose one nearer to train.ema_power", err=True
            )
