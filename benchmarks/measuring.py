"""Common parts of the benchmarks: interleaved medians, peaks, memory, and rows that later runs extend."""

import ctypes
import json
import multiprocessing
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from sddpm.cli.failures import fail
from sddpm.errors import UserError
from sddpm.evaluation.sampling import find_source, is_model, model_digest
from sddpm.files import atomic_path

Clock = Callable[[], float]
Row = dict[str, Any]
WRITTEN = ("--out", "--json", "--grid", "--work", "--force")  # options without an effect on what is measured


def run_benchmark(main: Callable[[], None]) -> None:
    """Run a benchmark. Bad input is one line on stderr and exit code 2, as with the command sddpm."""
    try:
        main()
    except UserError as error:
        sys.exit(fail(error))


def kept_json(kept: Path, option: str, *arguments: object) -> Any:
    """The JSON output of an sddpm command, which is run unless the kept file is of the same command and weights.

    Args:
        kept: the file of the output.
        option: the option of the command that names this file.
        arguments: the verb, the model or images that it is about, and options.

    Raises:
        UserError: a model that cannot be read.
        CalledProcessError: the command failed.
    """
    words = [str(argument) for argument in arguments]
    weights = weights_of(words[1])
    if not (kept.is_file() and _made_by(_read(kept), words, weights)):
        kept.parent.mkdir(parents=True, exist_ok=True)
        command = [*words, option, str(kept), "--force"]
        print("sddpm", *command, flush=True)
        subprocess.run([sys.executable, "-m", "sddpm", *command], check=True)
        with atomic_path(kept) as temporary:
            temporary.write_text(json.dumps(_read(kept) | {"model_sha256": weights}, indent=1) + "\n", encoding="utf-8")
    return _read(kept)


def weights_of(source: str | Path) -> str | None:
    """The SHA-256 of a model's configs and weights, None for images. Raises `UserError` if the model is incomplete."""
    path = find_source(str(source))
    return model_digest(path) if is_model(path) else None


def _made_by(found: Any, words: list[str], weights: str | None) -> bool:
    """Whether a kept output is of this command and these weights. Known weights identify a model of the same name, in
    whichever folder. (Energy estimates of earlier versions do not tell their weights.)"""
    before = shlex.split(found.get("command", ""))
    if words[0] not in before:
        return False
    before = before[before.index(words[0]) :]  # without the program
    known = found.get("model_sha256") or found.get("sha256") or found.get("samples", {}).get("sha256")
    if known not in (None, weights):
        return False
    return _meaning(before, known is not None) == _meaning(words, known is not None)


def _meaning(words: list[str], known: bool) -> list[tuple[str, str]]:
    """The options of a command, each with its value, in any order, without those that say where something is written;
    places that exist by their absolute path, and a model whose weights are known by its name."""
    verb, source, *rest = words
    pairs = [("verb", verb), ("source", Path(source).name if known else _absolute(source))]
    for word in rest:
        if word.startswith("--"):
            pairs.append((word, ""))
        else:
            pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]} {_absolute(word)}")
    return sorted(pair for pair in pairs if pair[0] not in WRITTEN)


def _absolute(word: str) -> str:
    return str(Path(word).resolve()) if Path(word).exists() else word


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


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
    """Rows of a JSON file, if it exists. Existing rows are not measured again. Other processes can add rows.

    earlier: values of fields that rows of earlier versions lack.
    """

    def __init__(self, path: Path | None, earlier: Row | None = None):
        self.path, self.earlier = path, earlier or {}
        self.rows: list[Row] = []
        self._read()

    def _read(self) -> None:
        if self.path is not None and self.path.exists():
            self.rows = [self.earlier | row for row in json.loads(self.path.read_text())]

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
