"""Common parts of the benchmarks: interleaved medians, peaks, memory, and rows that later runs extend."""

import ctypes
import json
import multiprocessing
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from sddpm.cli.failures import fail
from sddpm.errors import UserError
from sddpm.files import atomic_path

Clock = Callable[[], float]
Row = dict[str, Any]


def run_benchmark(main: Callable[[], None]) -> None:
    """Run a benchmark. Bad input is one line on stderr and exit code 2, as with the command sddpm."""
    try:
        main()
    except UserError as error:
        sys.exit(fail(error))


def kept_json(kept: Path, option: str, *arguments: object) -> Any:
    """The JSON output of an sddpm command (written to the file given by `option`), which is run unless the file
    exists."""
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        words = [str(argument) for argument in (*arguments, option, kept)]
        print("sddpm", *words, flush=True)
        subprocess.run([sys.executable, "-m", "sddpm", *words], check=True)
    return json.loads(kept.read_text(encoding="utf-8"))


def medians(
    tasks: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Clock,
    warm_up: int = 2,
    choose: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """Median seconds of each task (or the result of `choose`), interleaved so that other load slows them equally."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for repeat in range(repeats + warm_up):
        for name, task in tasks.items():
            start = clock()
            task()
            if repeat >= warm_up:
                times[name].append(clock() - start)
    return {name: choose(values) for name, values in times.items()}


def matmul_peak(clock: Clock, dtype: torch.dtype = torch.float32) -> float:
    """Multiply-accumulates per second of a product of two square matrices, the best of several."""
    a, b = (torch.randn(1024, 1024).to(dtype) for _ in range(2))
    times = []
    for _ in range(12):
        start = clock()
        a @ b
        times.append(clock() - start)
    return 1024**3 / min(times)


def peak_of(task: Callable[[], object]) -> float:
    """The largest increase of this process's memory, in MiB, while a task runs (Linux).

    Freed memory that malloc still holds is returned first; otherwise its reuse would not be measured.
    """
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    task()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def in_process(function: Callable[..., float], *args: Any) -> float:
    """The result of a function of a module, run in a separate process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


class Rows:
    """Rows of a JSON file, if it exists. Existing rows are not measured again. Other processes can add rows."""

    def __init__(self, path: Path | None):
        self.path = path
        self.rows: list[Row] = []
        self._read()

    def _read(self) -> None:
        if self.path is not None and self.path.exists():
            self.rows = json.loads(self.path.read_text())

    def read(self) -> list[Row]:
        """The rows, including those of other processes."""
        self._read()
        return self.rows

    def has(self, **key: Any) -> bool:
        self._read()
        return any(all(row.get(name) == value for name, value in key.items()) for row in self.rows)

    def add(self, row: Row) -> None:
        self._read()
        self.rows.append(row)
        if self.path is not None:
            with atomic_path(self.path) as temporary:
                temporary.write_text(json.dumps(self.rows, indent=1) + "\n")
