"""One evaluation of the network for sampling: the reference's wiring on spikingjelly, ours eager, and ours compiled.

    python benchmarks/sampling_speed.py [--channels 32 64 128] [--batch 1 8 32] [--T 4] [--size 32] [--threads N]
                                        [--repeats 7] [--model small] [--cpu-time] [--fastest] [--memory]
                                        [--out FILE.json]

All are interleaved in one process. Printed are medians in milliseconds, the ratio to the reference-equivalent, the time
of compiling and after how many evaluations it pays off, relative to our eager network. --model small is the network of
configs/mnist_small.yaml, which has patches and therefore no reference-equivalent: ratios are then to our eager network.
Networks are untrained, with batch-norm statistics of noise; their firing rate is printed. On a busy machine use
--cpu-time and --threads 1; --fastest uses minima instead of medians, for machines with varying load. --memory measures
the peak above the model's own memory, each form in its own process. Rows in FILE.json are not measured again.
"""

import argparse
import gc
import statistics
import time
from functools import partial
from pathlib import Path

import torch
from measuring import Clock, Row, Rows, in_process, matmul_peak, medians, peak_of
from torch import Tensor, nn

from sddpm.inference import compile_model
from sddpm.inference.compiled import MODES
from sddpm.models import SpikingUNet2DModel
from sddpm.models.macs import layer_macs

CIFAR = {"in_channels": 3, "out_channels": 3, "channel_mult": (1, 2, 2, 4), "num_res_blocks": 2}
MNIST_SMALL = {"in_channels": 1, "out_channels": 1, "channel_mult": (1, 2, 4), "num_res_blocks": 1, "patch_size": 2}
MODELS = {"paper": CIFAR, "small": CIFAR | MNIST_SMALL}


def build(model: str, channels: int, T: int, size: int = 32) -> SpikingUNet2DModel:
    """An untrained network with batch-norm statistics of its inputs."""
    torch.manual_seed(0)
    unet = SpikingUNet2DModel(**MODELS[model], base_channels=channels, T=T, sample_size=size)
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


def forms(unet: SpikingUNet2DModel, clock: Clock) -> tuple[dict[str, nn.Module], dict[str, float]]:
    """The forms of the network, and the seconds of compiling."""
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


def peak_memory(name: str, model: str, channels: int, T: int, size: int, batch: int, threads: int) -> float:
    """MiB that the first evaluation of a batch needs."""
    torch.set_num_threads(threads)
    unet = build(model, channels, T, size)
    form, x = forms(unet, time.perf_counter)[0][name], noise(unet, batch)
    gc.collect()
    return peak_of(lambda: evaluate(form, x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--T", type=int, nargs="+", default=[4])
    parser.add_argument("--size", type=int, nargs="+", default=[32])
    parser.add_argument("--model", choices=MODELS, default="paper")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--fastest", action="store_true", help="minima instead of medians")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.cpu_time else time.perf_counter
    peak = matmul_peak(clock) / 1e9
    unit = "CPU time" if args.cpu_time else "wall time"
    print(f"torch {torch.__version__}, {args.threads} threads, {unit}; float32 matmul {peak:.1f} GMAC/s")
    rows = Rows(args.out)
    for channels, T, size in ((channels, T, size) for channels in args.channels for T in args.T for size in args.size):
        key = {"model": args.model, "channels": channels, "T": T, "size": size, "threads": args.threads}
        batches = [batch for batch in args.batch if not rows.has(**key, batch=batch)]
        if not batches:
            continue
        unet = build(args.model, channels, T, size)
        found, compiling = forms(unet, clock)
        macs = T * sum(layer_macs(unet).values())
        print(
            f"\nch={channels} T={T} {size}x{size}: {macs / 1e9:.2f} GMAC per image, firing rate {firing_rate(unet):.2f}"
        )
        for batch in batches:
            x = noise(unet, batch)
            tasks = {name: partial(evaluate, form, x) for name, form in found.items()}
            times = medians(tasks, args.repeats, clock, choose=min if args.fastest else statistics.median)
            row = {**key, "batch": batch, "seconds": times, "compiling": compiling, "macs": macs, "float32_peak": peak}
            if args.memory:
                shape = (args.model, channels, T, size, batch, args.threads)
                row["memory"] = {name: in_process(peak_memory, name, *shape) for name in found}
            rows.add(row)
            print(as_text(row), flush=True)


def as_text(row: Row) -> str:
    line = f"batch {row['batch']:3}:"
    times, compiling = row["seconds"], row["compiling"]
    first = next(iter(times.values()))
    for name, value in times.items():
        share = row["macs"] * row["batch"] / value / 1e9 / row["float32_peak"]
        line += f"  {name} {value * 1e3:.1f} ms ({first / value:.2f}x, {share:.2f} of peak"
        line += f", {row['memory'][name]:.0f} MiB)" if "memory" in row else ")"
    for mode in MODES:
        saved = times["eager"] - times[mode]
        pays = f"{compiling[mode] / saved:.1f}" if saved > 0 else "never"
        line += f"; {mode}: compiling {compiling[mode] * 1e3:.0f} ms, pays off after {pays}"
    return line


if __name__ == "__main__":
    main()
