"""`sddpm average`: one model from several, the mean of their weights."""

from pathlib import Path
from typing import Annotated

import typer

from sddpm.cli.app import app
from sddpm.cli.options import MODEL
from sddpm.errors import UserError


@app.command()
def average(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder for the model.")],
    models: Annotated[list[str], typer.Argument(metavar="MODEL MODEL ...", help=f"Two or more. Each: {MODEL}")],
    shares: Annotated[
        str | None,
        typer.Option(help="Of each model, with commas, such as 0.6,0.4. (default: equal)", metavar="LIST"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Average the weights of models that were trained on from one another, or from one start (a model soup).

    It costs no training, and may be better than any of them: evaluate it. Training goes on with sddpm train
    OUT/config.yaml --init-from OUT, where the first model has a config.
    """
    from sddpm.files import Output, check_outputs
    from sddpm.training.averaging import average as write

    check_outputs([Output(out, folder=("model",))], inputs=models, force=force)
    try:
        numbers = None if shares is None else [float(share) for share in shares.split(",")]
    except ValueError as error:
        raise UserError(f"--shares must be numbers with commas, such as 0.6,0.4, not {shares}") from error
    write(models, out, numbers)
    typer.echo(f"saved {out}: the mean of {len(models)} models")
