"""The `sddpm` command line's one Typer application, to which every verb adds itself."""

import typer

from sddpm.cli.arguments import Verbs

app = typer.Typer(
    cls=Verbs,
    help="Spiking diffusion models: train, sample, evaluate, convert, inspect.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
