"""`sddpm app`: a page in the browser."""

from typing import Annotated

import typer

from sddpm.cli.app import app
from sddpm.cli.options import MODEL
from sddpm.errors import UserError


@app.command("app")
def open_page(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help=f"{MODEL} (default: one that comes with sddpm)")
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Address to serve at; 0.0.0.0 for all addresses of this machine, open to other machines."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve at; 0 for any free port.")] = 7860,
    browser: Annotated[bool, typer.Option("--browser", help="Open the page in a browser.")] = False,
) -> None:
    """Serve a page for the browser that draws pictures and shows spikes, energy and thresholds.

    It runs on this machine until Ctrl-C. Only this machine can open it unless --host says otherwise. It loads nothing
    from the network. The page offers MODEL, the models that come with sddpm, and the runs in the folder runs.
    """
    import webbrowser

    from sddpm.app.address import listen, url_of

    listener = listen(host, port)
    address = url_of(listener)
    typer.echo(f"starting, which may take a few seconds: {address}", err=True)
    try:
        from sddpm.app.server import make_server
    except ImportError as error:
        raise UserError(
            f"the page needs the extra app: pip install '.[app]' in the folder of the project ({error})"
        ) from error

    def ready() -> None:
        typer.echo(f"{address} is open; Ctrl-C ends it")
        if browser:
            webbrowser.open(address)

    make_server(model, listener, ready).run()
