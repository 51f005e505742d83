"""metrics.jsonl and the clock behind it."""

import errno
import time
from pathlib import Path

import pytest

from sddpm.errors import UserError
from sddpm.training.metrics import MetricsLog, read_metrics
from sddpm.training.progress import Stopwatch


def test_lines_come_back(tmp_path):
    log = MetricsLog(tmp_path, start=0, tensorboard=False)
    log.write({"step": 1, "loss": 0.5})
    log.write({"step": 2, "loss": 0.25})
    log.close()
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


def test_a_resumed_run_drops_what_comes_after_its_checkpoint(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    MetricsLog(tmp_path, start=2, tensorboard=False).write({"step": 3, "again": True})
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_no_metrics(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*metrics\.jsonl"):
        read_metrics(tmp_path)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    log = MetricsLog(tmp_path, start=0, tensorboard=False)

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match=r"metrics\.jsonl: No space left on device$"):
        log.write({"step": 1})


def test_tensorboard_holds_the_same_numbers(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = MetricsLog(tmp_path, start=0, tensorboard=True)
    log.write({"step": 3, "loss": 0.5, "lr": 0.125})
    log.close()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(3, 0.5)]
    assert [(e.step, e.value) for e in events.Scalars("train/lr")] == [(3, 0.125)]


def test_the_stopwatch_leaves_pauses_out(monkeypatch):
    now = iter([10.0, 11.0, 12.0, 20.0, 21.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    watch = Stopwatch(before=5.0)
    assert watch.seconds == 6.0
    with watch.paused():
        pass  # from 12 to 20
    assert watch.seconds == 8.0
