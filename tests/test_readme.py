"""What the README says works: its Python runs, its commands parse, its configs and links exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import sddpm.training

ROOT = Path(__file__).resolve().parent.parent

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands():
    table = re.findall(r"`(sddpm [^`]+)`", README)
    shell = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("sddpm ")]
    return [re.sub(r"\s+#.*", "", line) for line in shell + table if "CONFIG" not in line]


def test_python(tmp_path, monkeypatch):
    """All Python blocks one after another, with a shorter training run."""
    monkeypatch.chdir(tmp_path)
    load = sddpm.training.load_config
    shorter = ["train.steps=2", "train.sample_every=0", "model.base_channels=8", "model.channel_mult=[1, 2]"]
    monkeypatch.setattr(sddpm.training, "load_config", lambda name: load(name, shorter))
    assert len(blocks("python")) == 2
    exec("\n".join(blocks("python")), {})
    assert (tmp_path / "digit.png").exists()


@pytest.mark.parametrize("command", commands())
def test_options_exist(command):
    """Every option of every command is one that the verb's help knows."""
    _, verb, *rest = shlex.split(command)
    known = help_of(verb)
    for option in (word for word in rest if word.startswith("--")):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", known), option
    if verb == "train" and not rest[0].startswith("-"):
        assert (ROOT / "configs" / f"{rest[0]}.yaml").exists()


def help_of(verb, _known={}):  # noqa: B006  a cache
    if verb not in _known:
        command = [sys.executable, "-m", "sddpm", verb, "--help"]
        _known[verb] = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return _known[verb]


def test_links_exist():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links and [link for link in links if not (ROOT / link).exists()] == []
