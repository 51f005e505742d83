"""A training step: the reference's wiring on spikingjelly in float32, and ours in float32 and in bf16.

    python benchmarks/training_step.py [--channels 32 64 128] [--batch 1 8 32] [--T 4] [--size 32] [--threads N]
                                       [--forms float32 bf16 ...] [--repeats 5] [--cpu-time] [--memory]
                                       [--out FILE.json]

All are interleaved in one process: forward, backward, gradient clipping, Adam. Printed are medians, the ratio to the
reference-equivalent, and the share of the machine's matmul peak in the same arithmetic, with convolutions counted as
direct ones (most of ours need 2.25 times fewer multiplications, so the share can exceed 1). "recomputed" means gradient
checkpointing at all levels. --memory measures the peak of a forward and a backward pass above parameters, gradients and
optimiser state, each form in its own process (--repeats 0: only this). On a busy machine use --cpu-time and --threads
1. Rows in FILE.json are not measured again.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from measuring import Clock, Row, Rows, in_process, matmul_peak, medians, peak_of
from reference_equivalent import reference_equivalent
from torch import Tensor, nn

from sddpm.models import SpikingUNet2DModel
from sddpm.models.macs import layer_macs
from sddpm.neurons.kernels import describe
from sddpm.training.allocator import keep_large_buffers


@dataclass(frozen=True)
class Form:
    """The network, its arithmetic, and whether blocks are recomputed in the backward pass."""

    ours: bool = True
    dtype: torch.dtype = torch.float32
    recompute: bool = False


FORMS = {
    "reference": Form(ours=False),
    "float32": Form(),
    "float32 recomputed": Form(recompute=True),
    "bf16": Form(dtype=torch.bfloat16),
    "bf16 recomputed": Form(dtype=torch.bfloat16, recompute=True),
}
USUAL = ["float32", "bf16"]


class Training:
    """A network, its optimiser and batches of noise; memory layout and Adam are as in each code."""

    def __init__(self, form: Form, channels: int, T: int, size: int):
        self.form, self.size = form, size
        model = build(channels, T, size)
        if form.recompute:
            model.enable_gradient_checkpointing()
        self.predict: Callable[[Tensor, Tensor], Tensor]
        if form.ours:
            self.predict = lambda x, t: model(x, t).sample
            self.parameters = list(model.parameters())
        else:
            self.predict = baseline = reference_equivalent(model)
            self.parameters = list(baseline.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=1e-5, fused=form.ours)

    def backward(self, batch: int) -> None:
        generator = torch.Generator().manual_seed(1)
        x, target = (torch.randn(batch, 3, self.size, self.size, generator=generator) for _ in range(2))
        t = torch.randint(1000, (batch,), generator=generator)
        if self.form.ours:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.form.dtype == torch.bfloat16):
            out = self.predict(x, t)
        F.mse_loss(out.float(), target).backward()

    def step(self, batch: int) -> None:
        self.backward(batch)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def build(channels: int, T: int, size: int) -> SpikingUNet2DModel:
    torch.manual_seed(0)
    model = SpikingUNet2DModel(sample_size=size, base_channels=channels, T=T)
    return model.to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]


def work(channels: int, T: int, size: int) -> int:
    """Multiply-accumulates of a step for one image; the backward pass has twice those of the forward pass."""
    macs = layer_macs(build(channels, T, size))
    timeless = ("encoder.conv1", "time_embedding.", "time_projection.")
    return 3 * sum(n if any(part in name for part in timeless) else T * n for name, n in macs.items())


def peak_memory(name: str, channels: int, T: int, size: int, batch: int, threads: int) -> float:
    """MiB of a forward and a backward pass above parameters, gradients and the optimiser's state."""
    torch.set_num_threads(threads)
    training = Training(FORMS[name], channels, T, size)
    training.step(1)
    training.backward(1)
    return peak_of(lambda: training.backward(batch))


def measure(forms: list[str], key: Row, args: argparse.Namespace, clock: Clock) -> Row:
    row = {**key, **speeds(forms, key, args, clock)} if args.repeats else {**key}
    if args.memory:
        given = (key["channels"], key["T"], key["size"], key["batch"], args.threads)
        row["memory"] = {name: in_process(peak_memory, name, *given) for name in forms}
    return row


def speeds(forms: list[str], key: Row, args: argparse.Namespace, clock: Clock) -> Row:
    channels, T, size, batch = key["channels"], key["T"], key["size"], key["batch"]
    trainings = {name: Training(FORMS[name], channels, T, size) for name in forms}
    tasks = {name: lambda training=training: training.step(batch) for name, training in trainings.items()}
    seconds = medians(tasks, args.repeats, clock, warm_up=1)
    types = {name: str(FORMS[name].dtype).removeprefix("torch.") for name in forms}
    peaks = {dtype: matmul_peak(clock, getattr(torch, dtype)) for dtype in set(types.values())}
    speed = work(channels, T, size) * batch
    shares = {name: speed / seconds[name] / peaks[types[name]] for name in forms}
    return {"seconds": seconds, "shares": shares, "matmul_peaks": peaks, "cpu_time": args.cpu_time}


def as_text(row: Row) -> str:
    line = f"channels {row['channels']:3}, T {row['T']}, {row['size']} x {row['size']}, batch {row['batch']:2}:"
    for name, value in row.get("seconds", {}).items():
        times = row["seconds"]["reference"] / value
        line += f"  {name} {1e3 * value:.0f} ms ({times:.2f}x, {row['shares'][name]:.2f} of peak)"
    for name, peak in row.get("memory", {}).items():
        line += f"  {name} {peak:.0f} MiB ({peak / row['memory']['reference']:.2f})"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--T", type=int, nargs="+", default=[4])
    parser.add_argument("--size", type=int, nargs="+", default=[32])
    parser.add_argument(
        "--forms", nargs="+", choices=list(FORMS)[1:], default=USUAL, help="in addition to the reference"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--cpu-time", action="store_true", help="measure CPU time of the process, for a busy machine and one thread"
    )
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter
    torch.set_num_threads(args.threads)
    keep_large_buffers()
    print(f"torch {torch.__version__}, {args.threads} threads, {describe()}", flush=True)
    rows, forms = Rows(args.out), ["reference", *args.forms]
    grid = [(c, T, size, batch) for c in args.channels for T in args.T for size in args.size for batch in args.batch]
    for values in grid:
        key = dict(zip(("channels", "T", "size", "batch"), values, strict=True)) | {"threads": args.threads}
        key |= {"forms": forms, "with_memory": args.memory, "timed": args.repeats > 0}
        if not rows.has(**key):
            rows.add(measure(forms, key, args, clock))
            print(as_text(rows.rows[-1]), flush=True)


if __name__ == "__main__":
    main()
