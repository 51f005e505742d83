"""Convolutions over spikes, layer by layer: PyTorch's float32 convolution and our kernels, interleaved in one process.

    python benchmarks/spike_conv.py [--repeats 15] [--threads N] [--rate 0.25] [--kernels avx512 avx2 ...] [--cpu-time]

For every layer of an SDDPM this prints the speed of PyTorch's float32 convolution (channels last) in billions of
multiply-accumulates per second, and the speed of the kernels relative to it (ratios of medians): "conv" gives currents,
"fire" includes the bias and the neurons, which PyTorch's time does not. The last column is the speed of the first
kernel's convolution. Above the table are the machine's peaks, measured in the same run: float32 matrix product, and
8-bit integer convolution.
"""

import argparse
import math
import time
from collections.abc import Callable
from unittest.mock import patch

import torch
import torch.nn.functional as F
from measuring import medians
from torch import Tensor

from sddpm.inference.kernels.onednn import OnednnSpikeConv2d
from sddpm.inference.kernels.onednn import available as has_int8
from sddpm.inference.kernels.spike_conv import VARIABLE, choices, make_spike_conv, unsupported
from sddpm.neurons import Dynamics, SpikingNeuron

# B, image size, input and output channels, resampling; T = 4.
CH128 = [
    (1, 32, 128, 128, ""),
    (1, 32, 256, 128, ""),
    (1, 16, 256, 256, ""),
    (4, 16, 256, 256, ""),
    (4, 32, 128, 128, "down"),
    (4, 8, 256, 256, "up"),
    (4, 8, 768, 256, ""),
    (1, 4, 512, 512, ""),
    (4, 4, 512, 512, ""),
    (16, 4, 512, 512, ""),
]
CH32 = [(4, 32, 32, 32, ""), (32, 32, 32, 32, ""), (4, 16, 64, 64, ""), (32, 8, 64, 64, ""), (32, 4, 128, 128, "")]
T = 4


def spikes_and_weight(B: int, size: int, inputs: int, outputs: int, rate: float) -> tuple[Tensor, Tensor]:
    spikes = (torch.rand(T, B, size, size, inputs) < rate).to(torch.uint8)
    return spikes, torch.randn(outputs, inputs, 3, 3, dtype=torch.float64) / math.sqrt(9 * inputs)


def peaks(repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Multiply-accumulates per second."""
    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    work, tasks = {"float32 matrix product": 1536**3}, {"float32 matrix product": lambda: a @ b}
    if has_int8():
        spikes, weight = spikes_and_weight(1, 32, 256, 256, 0.25)
        conv = OnednnSpikeConv2d(weight, planes=1)
        work["8-bit integer convolution"] = spikes.numel() * weight.numel() // 256
        tasks["8-bit integer convolution"] = lambda: conv(spikes)
    return {name: work[name] / seconds for name, seconds in medians(tasks, repeats, clock).items()}


def float32(spikes: Tensor, weight: Tensor, resample: str) -> Callable[[], Tensor]:
    images = spikes.flatten(0, 1).permute(0, 3, 1, 2).float()
    if resample == "up":
        images = F.interpolate(images, scale_factor=2, mode="nearest")
    layer = weight.float().contiguous(memory_format=torch.channels_last)
    stride = 2 if resample == "down" else 1
    return lambda: F.conv2d(images, layer, stride=stride, padding=1)


def row(
    shape: tuple[int, int, int, int, str], kernels: list[str], rate: float, repeats: int, clock: Callable[[], float]
) -> str:
    B, size, inputs, outputs, resample = shape
    spikes, weight = spikes_and_weight(B, size, inputs, outputs, rate)
    neuron = SpikingNeuron(Dynamics())
    tasks: dict[str, Callable[[], object]] = {"float32": float32(spikes, weight, resample)}
    for kernel in kernels:
        for precision in ("exact", "fast"):
            with patch.dict("os.environ", {VARIABLE: kernel}):
                stride = 2 if resample == "down" else 1
                conv = make_spike_conv(weight, stride=stride, upsample=resample == "up", precision=precision)
            tasks[f"{kernel} {precision} conv"] = lambda conv=conv: conv(spikes)
            tasks[f"{kernel} {precision} fire"] = lambda conv=conv: conv.fire(spikes, neuron)
    times = medians(tasks, repeats, clock)
    out = {"": size, "down": size // 2, "up": size * 2}[resample]
    work = T * B * out**2 * weight.numel()
    ratios = [times["float32"] / seconds for name, seconds in times.items() if name != "float32"]
    layer = f"{inputs}-{outputs} {out}x{out} B{B} {resample}"
    numbers = "".join(f" | {ratio:13.2f}" for ratio in ratios)
    return f"{layer:24} | {work / times['float32'] / 1e9:8.0f}{numbers} | {work / list(times.values())[1] / 1e9:6.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rate", type=float, default=0.25, help="firing rate")
    parser.add_argument("--kernels", nargs="+", choices=choices()[:-1], help="default: all that this machine supports")
    parser.add_argument(
        "--cpu-time", action="store_true", help="measure CPU time of the process, for a busy machine and one thread"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    clock = time.process_time if options.cpu_time else time.perf_counter
    kernels = options.kernels or [kernel for kernel in choices()[:-1] if unsupported(kernel) is None]

    print(f"{options.threads} thread(s), firing rate {options.rate}")
    for name, speed in peaks(options.repeats, clock).items():
        print(f"{name}: {speed / 1e9:.0f} G multiply-accumulates per second")
    columns = [f"{kernel[:5]} {precision}" for kernel in kernels for precision in ("exact", "fast") for _ in range(2)]
    print(f"\n{'layer':24} |  float32" + "".join(f" | {name:>13}" for name in columns) + " |")
    print(f"{'':24} |  G/s    " + f" | {'conv':>13} | {'fire':>13}" * (len(columns) // 2) + " |    G/s", flush=True)
    for shape in [*CH128, *CH32]:
        print(row(shape, kernels, options.rate, options.repeats, clock), flush=True)


if __name__ == "__main__":
    main()
