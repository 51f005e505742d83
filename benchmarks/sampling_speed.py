"""One evaluation of the network for sampling: the reference's wiring on spikingjelly, ours eager, and ours compiled.

    python benchmarks/sampling_speed.py [--channels 32 64 128] [--batch 1 8 32] [--T 4] [--threads N] [--repeats 7]
                                        [--model small] [--cpu-time] [--memory] [--out FILE.json]

All take turns in one process; printed are medians in milliseconds, the ratio to the reference-equivalent, how long
compiling took and after how many evaluations that has paid, against our eager network. --model small is the network of
configs/mnist_small.yaml, which has patches and thus no reference-equivalent: ratios are then to our eager network.
Networks are untrained, with batch-norm statistics of noise; their firing rate is printed. On a busy machine --cpu-time
and --threads 1. --memory measures the peak above the model's own, each form in a process of its own.
"""

import argparse
import gc
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sddpm.inference import compile_model
from sddpm.inference.compiled import MODES
from sddpm.models import SpikingUNet2DModel
from sddpm.models.macs import layer_macs

CIFAR = {"sample_size": 32, "in_channels": 3, "out_channels": 3, "channel_mult": (1, 2, 2, 4), "num_res_blocks": 2}
MNIST_SMALL = {"in_channels": 1, "out_channels": 1, "channel_mult": (1, 2, 4), "num_res_blocks": 1, "patch_size": 2}
MODELS = {"paper": CIFAR, "small": CIFAR | MNIST_SMALL}


def build(model: str, channels: int, T: int) -> SpikingUNet2DModel:
    """An untrained network whose batch norms know what they see."""
    torch.manual_seed(0)
    unet = SpikingUNet2DModel(**MODELS[model], base_channels=channels, T=T)
    for module in unet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        unet.train()(noise(unet, 4), torch.tensor([100, 400, 700, 999]))
    return unet.eval()


def noise(unet: SpikingUNet2DModel, batch: int) -> Tensor:
    size = unet.config["sample_size"]
    return torch.randn(batch, unet.config["in_channels"], size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def firing_rate(unet: SpikingUNet2DModel) -> float:
    rates = []
    handles = [
        n.register_forward_hook(lambda _m, _i, s: rates.append(s.mean().item())) for n in unet.neurons().values()
    ]
    unet(noise(unet, 1), 500)
    for handle in handles:
        handle.remove()
    return statistics.mean(rates)


def forms(unet: SpikingUNet2DModel, clock: Callable[[], float]) -> tuple[dict[str, nn.Module], dict[str, float]]:
    """The forms of the network, and what compiling cost in seconds."""
    found: dict[str, nn.Module] = {}
    if unet.config["patch_size"] == 1:
        from reference_equivalent import reference_equivalent

        found["reference"] = reference_equivalent(unet)
    found["eager"] = unet
    seconds = {}
    for mode in MODES:
        start = clock()
        found[mode] = compile_model(unet, mode)
        seconds[mode] = clock() - start
    return found, seconds


@torch.no_grad()
def evaluate(form: nn.Module, x: Tensor) -> Tensor:
    if type(form).__name__ == "ReferenceUNet":
        return form(x, torch.full((len(x),), 500))
    return form(x, 500).sample


def medians(found: dict[str, nn.Module], x: Tensor, repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in found}
    for repeat in range(repeats + 1):
        for name, form in found.items():
            start = clock()
            evaluate(form, x)
            if repeat:
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def matmul_peak(clock: Callable[[], float]) -> float:
    """GMAC/s of a float32 matrix product."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    times = []
    for _ in range(8):
        start = clock()
        a @ b
        times.append(clock() - start)
    return 1024**3 / min(times[1:]) / 1e9


def _peak(connection: Any, name: str, model: str, channels: int, T: int, batch: int, threads: int) -> None:
    torch.set_num_threads(threads)
    unet = build(model, channels, T)
    form = forms(unet, time.perf_counter)[0][name]
    gc.collect()
    x = noise(unet, batch)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    evaluate(form, x)
    connection.send((_status("VmHWM") - before) / 1024)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def peak_memory(name: str, *args: Any) -> float:
    """MiB that the first evaluation of a batch needs (Linux)."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_peak, args=(sender, name, *args))
    process.start()
    sender.close()
    result = receiver.recv()
    process.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--T", type=int, nargs="+", default=[4])
    parser.add_argument("--model", choices=MODELS, default="paper")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.cpu_time else time.perf_counter
    peak = matmul_peak(clock)
    unit = "CPU time" if args.cpu_time else "wall time"
    print(f"torch {torch.__version__}, {args.threads} threads, {unit}; float32 matmul {peak:.1f} GMAC/s")
    rows = []
    for channels in args.channels:
        for T in args.T:
            unet = build(args.model, channels, T)
            found, seconds = forms(unet, clock)
            macs = T * sum(layer_macs(unet).values())
            first = next(iter(found))
            print(f"\nch={channels} T={T}: {macs / 1e9:.2f} GMAC an image, firing rate {firing_rate(unet):.2f}")
            for batch in args.batch:
                times = medians(found, noise(unet, batch), args.repeats, clock)
                row = {"model": args.model, "channels": channels, "T": T, "batch": batch, "threads": args.threads}
                row |= {"seconds": times, "compiling": seconds, "float32_peak": peak, "macs": macs}
                line = f"batch {batch:3}:"
                for name, value in times.items():
                    share = macs * batch / value / 1e9 / peak
                    line += f"  {name} {value * 1e3:.1f} ms ({times[first] / value:.2f}x, {share:.2f} of peak)"
                for mode in MODES:
                    saved = times["eager"] - times[mode]
                    pays = f"{seconds[mode] / saved:.1f}" if saved > 0 else "never"
                    line += f"; {mode}: compiling {seconds[mode] * 1e3:.0f} ms, pays after {pays}"
                if args.memory:
                    shape = (args.model, channels, T, batch, args.threads)
                    row["memory"] = {name: peak_memory(name, *shape) for name in found}
                    line += "; " + ", ".join(f"{name} {value:.0f} MiB" for name, value in row["memory"].items())
                print(line, flush=True)
                rows.append(row)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
