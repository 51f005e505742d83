"""`sddpm app`: addresses, refusals, and how it ends."""

import errno
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from sddpm.app.address import listen, url_of
from sddpm.errors import UserError
from sddpm.pretrained import pretrained_names


def test_addresses():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 is in use"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--port", 70000), "--port must be from 0 (any free port) to 65535, not 70000"),
        (("--host", "no.such.host.invalid"), "--host 'no.such.host.invalid' is not an address of this machine"),
        (
            ("--host", "192.0.2.1", "--port", 7860),
            f"cannot listen at 192.0.2.1, port 7860: {os.strerror(errno.EADDRNOTAVAIL)}",
        ),
        (
            ("nothing", "--port", 0),
            "no model at nothing: there is no such folder, and the models that come with sddpm are "
            + ", ".join(pretrained_names()),
        ),
    ],
)
def test_refusals(sddpm, arguments, line):
    code, _, said = sddpm("app", *arguments)
    assert (code, said.splitlines()[-1]) == (2, f"error: {line}")


def test_a_port_in_use(sddpm):
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        code, _, said = sddpm("app", "--port", port)
        assert code == 2 and f"port {port} of 127.0.0.1 is in use: choose another, or --port 0" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_cleanly(number):
    command = [sys.executable, "-m", "sddpm", "app", "fashion-mnist-small", "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        address = process.stdout.readline().split()[0]
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert b"sddpm" in answer.read()
        process.send_signal(number)
        assert process.wait(30) == 0
        assert "Traceback" not in process.stderr.read()
