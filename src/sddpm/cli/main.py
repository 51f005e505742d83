"""The `sddpm` command: one verb a file in this folder; this file only gathers them and turns errors into exit codes."""

import sys

import typer

from sddpm.errors import UserError

app = typer.Typer(
    help="Spiking diffusion models: train, sample, convert, inspect.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def run() -> None:
    """Entry point. A `UserError` becomes one line on stderr and exit code 2; Ctrl-C exit code 130."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
