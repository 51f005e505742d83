"""`sddpm average`: makes one model from several by averaging their weights."""

from pathlib import Path
from typing import Annotated

import typer

from sddpm.cli.app import app
from sddpm.cli.options import MODEL
from sddpm.errors import UserError


@app.command()
def average(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder for the model.")],
    models: Annotated[list[str], typer.Argument(metavar="MODEL MODEL ...", help=f"Two or more models. Each: {MODEL}")],
    shares: Annotated[
        str | None,
        typer.Option(
            help="Weight of each model, 0 or more, separated by commas, such as 0.6,0.4. (default: equal)",
            metavar="LIST",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Average the weights of models that were trained from one another, or from a common start (a model soup).

    It needs no training, and the average can be better than each model: evaluate it. If the first model has a config,
    training continues with sddpm train OUT/config.yaml --init-from OUT.
    """
    from sddpm.files import Output, check_outputs
    from sddpm.training.averaging import average as write

    check_outputs([Output(out, folder=("model",))], inputs=models, force=force)
    try:
        numbers = None if shares is None else [float(share) for share in shares.split(",")]
    except ValueError as error:
        raise UserError(f"--shares must be numbers separated by commas, such as 0.6,0.4, not {shares}") from error
    write(models, out, numbers)
    typer.echo(f"saved {out}: the mean of {len(models)} models")
