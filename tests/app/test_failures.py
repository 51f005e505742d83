"""What is said of work that failed."""

import torch

from sddpm.app.failures import in_a_line
from sddpm.errors import UserError


def test_lines(caplog):
    assert in_a_line(UserError("`seeds` are numbers")) == "seeds are numbers"
    assert in_a_line(FileNotFoundError(2, "No such file or directory", "x.json")) == "x.json: No such file or directory"
    assert "too little memory" in in_a_line(torch.OutOfMemoryError("CUDA"))
    assert not caplog.records
    assert in_a_line(KeyError("x")).startswith("Unexpected KeyError: 'x'. This is a bug in sddpm")
    assert caplog.records[0].exc_info
