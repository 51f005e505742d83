"""Serves the page from this machine until it is stopped."""

import socket
from collections.abc import Callable
from types import FrameType

import gradio as gr
import uvicorn
from fastapi import FastAPI

from sddpm.app.jobs import Jobs
from sddpm.app.page import CSS, make_page, theme
from sddpm.app.shelf import Shelf


def make_server(model: str | None, listener: socket.socket, ready: Callable[[], None]) -> "PageServer":
    """Make the server of the page; call `run()` on it.

    Args:
        model: the first model, by name or folder; None for the first that comes with the package.
        listener: the listening socket.
        ready: called when the page can be opened.

    Raises:
        UserError: there is no such model, or it cannot be loaded.
    """
    jobs = Jobs()
    page = make_page(Shelf(model), jobs)
    host, port = listener.getsockname()[:2]
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="/",
        server_name=host,
        server_port=port,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        theme=theme(),
        css_paths=[CSS],
    )
    return PageServer(app, listener, jobs, ready)


class PageServer(uvicorn.Server):
    """Serves the page until `end`, or until SIGINT or SIGTERM; `run` then returns."""

    def __init__(self, app: FastAPI, listener: socket.socket, jobs: Jobs, ready: Callable[[], None]):
        super().__init__(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, lifespan="on"))
        self._listener, self._jobs, self._ready = listener, jobs, ready

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        super().run(sockets or [self._listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def end(self) -> None:
        """Stop; work stops at its next evaluation, and open connections are not waited for."""
        self.should_exit = True
        self._jobs.stop(None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A stop request is not a failure: the command ends normally."""
        self.force_exit = self.should_exit  # the second signal stops at once
        self.end()
