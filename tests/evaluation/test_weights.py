"""Finding and checking the weights: a path, a download from a local server, hashes, and files that are no weights."""

import hashlib
import http.server
import pickle
import threading
from functools import partial

import pytest
import torch

from sddpm.data import download
from sddpm.errors import UserError
from sddpm.evaluation.features import weights
from sddpm.evaluation.features.inception import InceptionV3


@pytest.fixture
def server(tmp_path):
    """A web server's address and the folder it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_published_file_is_downloaded_once(server, tmp_path, monkeypatch):
    url, folder = server
    (folder / weights.INCEPTION_FILE).write_bytes(b"weights")
    monkeypatch.setattr(weights, "INCEPTION_SHA256", hashlib.sha256(b"weights").hexdigest())
    path = weights.inception_weights(base_url=url, cache_dir=tmp_path / "cache")
    assert path.read_bytes() == b"weights"
    (folder / weights.INCEPTION_FILE).unlink()
    assert weights.inception_weights(base_url=url, cache_dir=tmp_path / "cache") == path


def test_a_download_with_another_hash_is_refused_and_not_kept(server, tmp_path):
    url, folder = server
    (folder / weights.INCEPTION_FILE).write_bytes(b"something else")
    with pytest.raises(UserError, match=r"sha256 is .* not the published 6726825d.*inception=PATH") as caught:
        weights.inception_weights(base_url=url, cache_dir=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_download_appears_whole_or_not_at_all(server, tmp_path, monkeypatch):
    """While it is on its way, nothing has its name; whoever comes meanwhile fetches for himself."""
    url, folder = server
    body = bytes(range(256)) * 4000
    (folder / weights.INCEPTION_FILE).write_bytes(body)
    monkeypatch.setattr(weights, "INCEPTION_SHA256", hashlib.sha256(body).hexdigest())
    monkeypatch.setenv("SDDPM_WEIGHTS_URL", url)
    monkeypatch.setenv("SDDPM_CACHE", str(tmp_path / "cache"))
    target = tmp_path / "cache" / "weights" / weights.INCEPTION_FILE
    copy = download._copy
    seen = []

    def watched_copy(*arguments):
        copied = copy(*arguments)
        seen.append((copied, target.exists()))
        return copied

    monkeypatch.setattr(download, "_copy", watched_copy)
    assert weights.inception_weights() == target
    assert seen == [(len(body), False)]
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    target.write_bytes(body[:-1])  # damaged later: its name tells
    with pytest.raises(UserError, match="not 6726825d as in its name"):
        weights.inception_weights(target)


def test_a_missing_download_says_what_to_do(server, tmp_path):
    with pytest.raises(UserError, match=r"HTTP 404.*inception=PATH"):
        weights.inception_weights(base_url=server[0], cache_dir=tmp_path)


def test_a_file_is_checked_by_the_hash_in_its_name(tmp_path):
    good = tmp_path / f"mine-{hashlib.sha256(b'x').hexdigest()[:8]}.pth"
    good.write_bytes(b"x")
    assert weights.inception_weights(good) == good
    bad = tmp_path / weights.INCEPTION_FILE
    bad.write_bytes(b"x")
    with pytest.raises(UserError, match="not 6726825d as in its name"):
        weights.inception_weights(bad)
    with pytest.raises(UserError, match="no Inception weights at"):
        weights.inception_weights(tmp_path / "nothing.pth")


class Trap:
    """Would write a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_pickle_is_executed(tmp_path):
    (tmp_path / "trap.pth").write_bytes(
        pickle.dumps({"Conv2d_1a_3x3.conv.weight": Trap(tmp_path / "sprung")}, protocol=2)
    )
    with pytest.raises(UserError, match="is not a file of weights"):
        weights.load_weights(InceptionV3(["64"]), tmp_path / "trap.pth", "a test")
    assert not (tmp_path / "sprung").exists()


def test_damaged_files_are_refused(random_inception, tmp_path):
    content = random_inception[0].read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, words in (("cut", "damaged"), ("empty", "damaged"), ("list", "must contain named tensors, not a list")):
        with pytest.raises(UserError, match=words) as caught:
            weights.load_weights(InceptionV3(["64"]), tmp_path / f"{name}.pth", "a test")
        assert "\n" not in str(caught.value)
