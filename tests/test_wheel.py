"""A wheel of the project: pip installs it, twine finds nothing to complain of, and what it needs is inside."""

import os
import shutil
import subprocess
import sys
import tomllib

import pytest

from tests.helpers.documents import ROOT

PARTS = ("README.md", "LICENSE", "MANIFEST.in", "Makefile", "constraints.txt", "pyproject.toml", "setup.py")
CHECK = """
import sddpm
from sddpm.pretrained import pretrained_names
from sddpm.training.config_files import config_names, load_config
from sddpm.energy import load_cost_model
assert "site-packages" not in sddpm.__file__ and {installed!r} in sddpm.__file__, sddpm.__file__
assert {{"mnist", "fashion-mnist"}} <= set(pretrained_names()) and load_cost_model("45nm").mac_pj == 4.6
assert "digits" in config_names() and load_config("digits").train.steps == 850
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the tree, without a compiler: the native kernels are optional, and take a minute."""
    tree = tmp_path_factory.mktemp("tree")
    for part in PARTS:
        shutil.copy(ROOT / part, tree)
    for folder in ("src", "configs", "examples"):
        left_out = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
        shutil.copytree(ROOT / folder, tree / folder, ignore=left_out)
    environment = {**os.environ, "CC": "false", "CXX": "false"}
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tree / "dist", tree]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    (path,) = (tree / "dist").glob("*.whl")
    return path


def test_twine_finds_nothing(wheel):
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", wheel], check=True, capture_output=True)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert wheel.name.startswith(f"sddpm-{version}-")


def test_pip_installs_it_with_models_and_configs(wheel, tmp_path):
    target = tmp_path / "installed"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--target",
        target,
        wheel,
    ]
    subprocess.run(command, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    check = CHECK.format(installed=str(target))
    subprocess.run([sys.executable, "-c", check], check=True, cwd=tmp_path, env=environment, timeout=300)
