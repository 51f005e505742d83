"""The Typer application of the `sddpm` command line, to which every verb adds itself."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from sddpm.cli.arguments import Verbs
from sddpm.cli.help import Verb
from sddpm.cli.loudness import with_loudness


class App(typer.Typer):
    """An application whose verbs all show their help unchanged and have --quiet and --verbose."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """As in typer."""
        add = super().command(name, cls=Verb, **settings)

        def decorate(verb: Callable[..., Any]) -> Callable[..., Any]:
            add(with_loudness(verb))
            return verb

        return decorate


app = App(
    cls=Verbs,
    help="Spiking diffusion models: train, sample, evaluate, convert, inspect.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def show_version(wanted: bool) -> None:
    """Print the version and exit, if `wanted`."""
    if wanted:
        from sddpm import __version__

        typer.echo(f"sddpm {__version__}")
        raise typer.Exit


@app.callback()
def options_of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Spiking diffusion models: train, sample, evaluate, convert, inspect."""
