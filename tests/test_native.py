"""The boundary to the native kernels: what is passed on has the type, device and extent that they take it to have."""

import os
import subprocess
import sys

import pytest
import torch

from sddpm.native import pointer
from tests.helpers.under_defaults import computed


@pytest.fixture(scope="module")
def expected():
    """With the defaults that PyTorch starts with."""
    environment = dict(os.environ)
    found = computed("float32")
    assert os.environ == environment
    return found


@pytest.mark.parametrize("default", ["float16", "bfloat16", "float64", "meta"])
def test_other_defaults_give_the_same_bits(expected, tmp_path, default):
    path = tmp_path / "found.pt"
    program = [sys.executable, "-m", "tests.helpers.under_defaults", default, str(path)]
    run = subprocess.run(program, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr
    found = torch.load(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_wrong_memory_is_refused():
    x = torch.zeros(4, 6)
    assert pointer("x", x, torch.float32) == x.data_ptr() and pointer("x", None, torch.float32) is None
    assert pointer("x", x.t(), torch.float32) == x.data_ptr()
    with pytest.raises(TypeError, match=r"need x as torch.float32 on cpu, got torch.float16"):
        pointer("x", x.half(), torch.float32)
    with pytest.raises(TypeError, match="on meta"):
        pointer("x", x.to("meta"), torch.float32)
    with pytest.raises(TypeError, match="without gaps"):
        pointer("x", x[:, ::2], torch.float32)
    assert pointer("x", x[:, ::2], torch.float32, strided=True) == x.data_ptr()
