"""Clocks, memory and peaks for benchmarks/gpu.py, on a GPU or (to test the script) on the CPU."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

Task = Callable[[], object]
Row = dict[str, Any]


@dataclass
class Bench:
    """The device of the measurements and their time limit.

    device: "cuda" or "cpu"; quick: smallest sizes and few repeats; deadline: of time.monotonic(), in seconds.
    """

    device: torch.device
    quick: bool
    deadline: float
    peaks: dict[str, float] = field(default_factory=dict)  # TFLOP/s of a matrix product, by arithmetic

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def out_of_time(self) -> bool:
        return time.monotonic() > self.deadline

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def seconds(self, task: Task) -> float:
        """Seconds of one call, by events on a GPU."""
        if not self.cuda:
            start = time.perf_counter()
            task()
            return time.perf_counter() - start
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        task()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3

    def medians(self, tasks: Mapping[str, Task], budget: float = 4.0) -> dict[str, float]:
        """Median seconds of each task, which are interleaved, for about `budget` seconds in total."""
        warm = 1 if self.quick else 3
        for task in tasks.values():
            for _ in range(warm):
                task()
            self.wait()
        times: dict[str, list[float]] = {name: [self.seconds(task)] for name, task in tasks.items()}
        rounds = int(budget / max(1e-6, sum(first for (first,) in times.values())))
        for _ in range(2 if self.quick else max(4, min(rounds, 50))):
            if self.out_of_time():
                break
            for name, task in tasks.items():
                times[name].append(self.seconds(task))
        return {name: statistics.median(values) for name, values in times.items()}

    def peak_memory(self, task: Task) -> float | None:
        """Peak MiB of a call, in addition to the memory allocated before."""
        if not self.cuda:
            return None
        self.clean()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        task()
        self.wait()
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    def clean(self) -> None:
        gc.collect()
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def share_of_peak(self, flop: float, seconds: float, arithmetic: str) -> float | None:
        """Achieved floating-point operations relative to a matrix product in the same arithmetic."""
        peak = self.peaks.get(arithmetic)
        return None if peak is None else flop / seconds / 1e12 / peak


def matmul_peaks(bench: Bench) -> dict[str, float]:
    """TFLOP/s of a large matrix product of random numbers, by arithmetic."""
    size = 256 if bench.quick else 8192
    before = torch.backends.cuda.matmul.allow_tf32
    found = {}
    for name, dtype in (
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
        ("tf32", torch.float32),
        ("fp32", torch.float32),
    ):
        if name == "tf32" and not bench.cuda:
            continue
        a, b = (torch.randn(size, size, device=bench.device).to(dtype) for _ in range(2))
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        try:
            seconds = bench.medians({name: lambda a=a, b=b: a @ b}, budget=1.0)[name]
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
        found[name] = 2 * size**3 / seconds / 1e12
    return found


def copy_bandwidth(bench: Bench) -> float:
    """GB/s of a copy on the device, bytes read and written."""
    elements = 2**20 if bench.quick else 2**30
    x = torch.randn(elements, device=bench.device)
    y = torch.empty_like(x)
    return 2 * x.nbytes / bench.medians({"copy": lambda: y.copy_(x)}, budget=1.0)["copy"] / 1e9


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 convolutions may use TF32, PyTorch's default on GPUs."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
