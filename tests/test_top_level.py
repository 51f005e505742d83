"""What `import sddpm` offers: names that are seen, found when they are used, and that cost nothing before."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sddpm


@pytest.mark.parametrize("name", sddpm.__all__)
def test_a_public_name_is_seen_and_found(name):
    assert name in dir(sddpm)
    assert getattr(sddpm, name) is not None


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(sddpm.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: each.module for each in block.body if isinstance(each, ast.ImportFrom) for alias in each.names
    }
    assert seen == sddpm._LAZY
    assert {*seen, "__version__"} == set(sddpm.__all__)


def test_looking_does_not_wait_for_torch():
    script = "import sys, sddpm; assert 'register_solver' in dir(sddpm); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
