"""The page, served by a thread of this process, in headless Chromium. Without Chromium these tests fail."""

import base64
import io
import shutil
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from sddpm.app.address import listen, url_of
from tests.helpers.browser import chromium

MODEL = "fashion-mnist-small"


def field(page, label):
    """The field with a label, in the view that is open."""
    return page.get_by_label(label).filter(visible=True).first


def choose(page, label, option):
    """Choose an option of a field."""
    field(page, label).click()
    page.get_by_role("option", name=option, exact=True).click()


def line(page):
    """The line that says how far the work is, in the view that is open."""
    return page.get_by_role("status").filter(visible=True)


def saved(page):
    """The pixels that the link of the view saves."""
    href = page.get_by_role("link", name="Save as PNG").filter(visible=True).get_attribute("href")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(href.partition(",")[2]))))


@pytest.fixture(scope="package")
def browser():
    assert shutil.which("chromium"), "the page is tested in Chromium: apt-get install chromium"
    with chromium() as browser:
        yield browser


@contextmanager
def page_of(model):
    """The address at which the page of a model is served."""
    from sddpm.app.server import make_server

    listener, ready = listen("127.0.0.1", 0), threading.Event()
    server = make_server(model, listener, ready.set)
    thread = threading.Thread(target=server.run)
    thread.start()
    assert ready.wait(60)
    yield url_of(listener) + "/"
    server.end()
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="package")
def address():
    with page_of(MODEL) as address:
        yield address


@pytest.fixture
def visit(browser, address):
    """Opens the page as a new visitor, at a view. Afterwards nothing may have failed or gone to another address."""
    said, asked, contexts, places = [], [], [], []

    def open_page(view="Draw", width=1280, height=900, at=address):
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        places.append(at)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(at)
        page.get_by_role("tab", name=view).click()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith((*places, "data:", "blob:"))] == []
