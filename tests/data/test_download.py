"""Downloads from a local HTTP server: md5, broken and resumed transfers, and what a user reads when it fails."""

import hashlib
import http.server
import logging
import threading
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from sddpm.data import open_dataset
from sddpm.data.download import fetch
from sddpm.data.registry import DATASETS
from sddpm.errors import UserError

BODY = np.random.default_rng(0).bytes(1_000_000)
MD5 = hashlib.md5(BODY).hexdigest()


@contextmanager
def serving(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves BODY; `plan.cuts` says how many bytes each request sends before the line breaks (None: all)."""

    def __init__(self, plan, *args):
        self.plan = plan
        super().__init__(*args)

    def do_GET(self):
        begin = self.headers.get("Range")
        self.plan.requests.append(begin)
        start = int(begin.removeprefix("bytes=").rstrip("-")) if begin and self.plan.ranges else 0
        cut = self.plan.cuts.pop(0) if self.plan.cuts else None
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        self.wfile.write(BODY[start:] if cut is None else BODY[start : start + cut])

    def log_message(self, *args):
        pass


@contextmanager
def server_of_body(*cuts, ranges=True):
    plan = SimpleNamespace(cuts=list(cuts), ranges=ranges, requests=[])
    with serving(partial(Handler, plan)) as url:
        yield url + "/x.bin", plan


@pytest.fixture(scope="module")
def shared_server(shared_dir):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with serving(partial(Quiet, directory=shared_dir / "data")) as url:
        yield url


def only(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_whole_file_appears_with_its_name_alone(tmp_path):
    with server_of_body() as (url, _):
        fetch([url], tmp_path / "a" / "x.bin", MD5)
    assert (tmp_path / "a" / "x.bin").read_bytes() == BODY
    assert only(tmp_path) == ["x.bin"]


def test_a_broken_transfer_is_resumed_where_it_stopped(tmp_path):
    with server_of_body(300_000, 200_000) as (url, plan):
        fetch([url], tmp_path / "x.bin", MD5)
    assert (tmp_path / "x.bin").read_bytes() == BODY
    assert plan.requests == [None, "bytes=300000-", "bytes=500000-"]


def test_a_server_without_ranges_starts_again(tmp_path):
    with server_of_body(300_000, ranges=False) as (url, plan):
        fetch([url], tmp_path / "x.bin", MD5)
    assert (tmp_path / "x.bin").read_bytes() == BODY and len(plan.requests) == 2


def test_a_transfer_that_keeps_breaking_leaves_nothing(tmp_path):
    with (
        server_of_body(1000, 1000, 1000, 1000) as (url, plan),
        pytest.raises(UserError, match="stopped after 3000 of 1000000 bytes"),
    ):
        fetch([url], tmp_path / "x.bin", MD5)
    assert only(tmp_path) == [] and len(plan.requests) == 3


def test_wrong_md5_is_refused_and_leaves_nothing(tmp_path):
    with server_of_body() as (url, _), pytest.raises(UserError, match=f"md5 is {MD5}, not the published 0000"):
        fetch([url], tmp_path / "x.bin", "0" * 32)
    assert only(tmp_path) == []


def test_the_next_place_is_tried(tmp_path, shared_server):
    with server_of_body() as (url, _):
        fetch([shared_server + "/nothing/x.bin", url], tmp_path / "x.bin", MD5)
    assert (tmp_path / "x.bin").read_bytes() == BODY


def test_errors_are_one_line_with_every_place_and_its_reason(tmp_path, shared_server):
    places = [shared_server + "/nothing/x.bin", "http://127.0.0.1:9/x.bin", "file:///etc/passwd"]
    with pytest.raises(UserError) as caught:
        fetch(places, tmp_path / "x.bin", MD5)
    text = str(caught.value)
    assert all(place in text for place in places)
    assert "HTTP 404" in text and "refused" in text and "not an http" in text and "\n" not in text


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        fetch(["http://127.0.0.1:9/x"], tmp_path / "file" / "x.bin", MD5)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_published_md5s_through_open_dataset(tmp_path, shared_server, name, monkeypatch):
    if name == "mnist":
        monkeypatch.setenv("SDDPM_DATA_URL", shared_server)
        ds = open_dataset(name, split="test", download=True, cache_dir=tmp_path)
    else:
        ds = open_dataset(name, split="test", download=True, cache_dir=tmp_path, base_url=shared_server + "/")
    assert len(ds) == 10_000
    assert only(tmp_path) == sorted(
        f"{a}-{b}-ubyte.gz" for a in ("t10k", "train") for b in ("images-idx3", "labels-idx1")
    )
    monkeypatch.delenv("SDDPM_DATA_URL", raising=False)
    monkeypatch.setenv("SDDPM_CACHE", str(tmp_path))
    assert len(open_dataset(name)) == 60_000  # from the cache, without a word of download


def test_a_tampered_data_set_is_not_kept(tmp_path, shared_dir, caplog):
    folder = tmp_path / "served" / "mnist"
    folder.mkdir(parents=True)
    for path in (shared_dir / "data" / "fashion-mnist").glob("*.gz"):  # right names, wrong data
        (folder / path.name).symlink_to(path)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with serving(handler) as url, pytest.raises(UserError, match="md5 is 8d4fb7e6"):
        open_dataset("mnist", download=True, cache_dir=tmp_path / "cache", base_url=url)
    assert only(tmp_path / "cache") == []


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_without_leave_nothing_is_fetched_and_the_way_is_told(tmp_path, name, caplog):
    with caplog.at_level(logging.DEBUG), pytest.raises(UserError) as caught:
        open_dataset(name, cache_dir=tmp_path)
    assert "`download=True`" in str(caught.value) and "`path`" in str(caught.value)
    assert only(tmp_path) == []


@pytest.mark.parametrize("name", ["celeba", "lsun", "folder"])
def test_what_cannot_be_fetched_says_so(name):
    assert name in DATASETS
    with pytest.raises(UserError, match=r"needs `path`.*cannot be downloaded"):
        open_dataset(name, download=True)
