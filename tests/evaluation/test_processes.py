"""Processes that share an evaluation, as the environment says."""

import pytest
import torch.distributed as dist

from sddpm.errors import UserError
from sddpm.evaluation.processes import launched_processes


@pytest.mark.parametrize("others", [{}, {"RANK": "one", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}])
def test_a_number_of_processes_that_were_not_started_is_refused(monkeypatch, others):
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"WORLD_SIZE": "2"} | others).items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(UserError, match=r"the 2 processes of WORLD_SIZE cannot be connected: .*or unset WORLD_SIZE"),
        launched_processes(),
    ):
        pass
    assert not dist.is_initialized()


def test_without_a_launcher_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched_processes() as processes:
        assert processes.first and processes.count == 1
