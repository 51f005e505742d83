"""Headless Chromium, and a folder served to it. On CI, where .ci/run installs both, tests fail without them."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REQUIRED = bool(os.environ.get("CI") or os.environ.get("SDDPM_REQUIRE_BROWSER"))


def needs(*programs: str) -> None:
    """Skip the test without these programs, or fail if CI or SDDPM_REQUIRE_BROWSER is set."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing and not REQUIRED:
        pytest.skip(f"no {' and no '.join(missing)} here; set SDDPM_REQUIRE_BROWSER=1 to fail instead")
    assert not missing, f"needed by this test: {', '.join(missing)}"


@contextmanager
def chromium() -> Iterator:
    """A browser of playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            browser.close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which a folder is served, as `python -m http.server` serves it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
