"""Ways to compute Inception features on a CPU, compared: medians of interleaved runs in one process.

    python benchmarks/inception_features.py [--feature 768] [--images 32] [--repeats 7] [--threads 1] [--cpu-time]

Random weights, which cost as much as the published ones. Prints milliseconds per image, the speed relative to the first
line, and the largest difference of the features from float64's, in standard deviations of the features.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sddpm.evaluation.features.inception import InceptionV3
from sddpm.evaluation.features.preprocess import clean_fid, pytorch_fid

Task = Callable[[], Tensor]


def network(feature: str) -> InceptionV3:
    """Random weights whose features neither vanish nor explode."""
    found = InceptionV3([feature])
    generator = torch.Generator().manual_seed(0)
    for name, value in found.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0, generator=generator)
        elif value.ndim > 1:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
    return found


def networks(feature: str, images: Tensor, batches: list[int]) -> dict[str, Task]:
    """The ways to compute features of images [N, 3, 299, 299]."""

    def task(net: InceptionV3, layout: torch.memory_format, batch: int) -> Task:
        net.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        x = images.contiguous(memory_format=layout)
        return lambda: torch.cat([net(part)[feature] for part in x.split(batch)])

    most = max(batches)
    found = {
        f"batch norm apart, channels first, {most} at a time": task(network(feature), torch.contiguous_format, most),
        f"batch norm apart, channels last, {most} at a time": task(network(feature), torch.channels_last, most),
        f"batch norm folded, channels first, {most} at a time": task(
            network(feature).fold(), torch.contiguous_format, most
        ),
    }
    for batch in batches:
        title = f"batch norm folded, channels last, {batch} at a time"
        found[title] = task(network(feature).fold(), torch.channels_last, batch)
    return found


def interpolation(size: int, out: int = 299) -> Tensor:
    """[299, size]: the matrix of bilinear interpolation."""
    eye = torch.eye(size, dtype=torch.float64)[None, None]
    return F.interpolate(eye, size=(out, size), mode="bilinear", align_corners=False)[0, 0].float()


def bilinear_ways(images: Tensor) -> dict[str, Task]:
    """The ways to resize uint8 images [N, 3, H, W] as pytorch-fid does."""
    matrix = interpolation(images.shape[-1])

    def channels_first() -> Tensor:
        x = F.interpolate(images.float() / 255, size=(299, 299), mode="bilinear", align_corners=False)
        return (2 * x - 1).contiguous(memory_format=torch.channels_last)

    def product() -> Tensor:
        x = matrix @ (2 * (images.float() / 255) - 1) @ matrix.T
        return x.contiguous(memory_format=torch.channels_last)

    return {
        "pytorch-fid: interpolate, channels first": channels_first,
        "pytorch-fid: interpolate, channels last": lambda: pytorch_fid(images),
        "pytorch-fid: matrix product": product,
    }


def bicubic_ways(images: Tensor) -> dict[str, Task]:
    """The ways to resize uint8 images [N, 3, H, W] as clean-fid does."""

    def by_torch() -> Tensor:
        x = images.float().contiguous(memory_format=torch.channels_last)
        return (F.interpolate(x, size=(299, 299), mode="bicubic", antialias=True).clamp(0, 255) - 128) / 128

    return {
        "clean-fid: Pillow": lambda: clean_fid(images).contiguous(memory_format=torch.channels_last),
        "clean-fid: PyTorch's antialiased bicubic": by_torch,
    }


def measure(tasks: dict[str, Task], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each task, which are interleaved so that a busy machine slows them equally."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for repeat in range(repeats + 1):
        for name, task in tasks.items():
            start = clock()
            task()
            if repeat:  # the first run warms up
                times[name].append(clock() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def report(tasks: dict[str, Task], exact: Tensor, repeats: int, clock: Callable[[], float]) -> None:
    seconds = measure(tasks, repeats, clock)
    first = next(iter(seconds.values()))
    for name, found in seconds.items():
        error = ((tasks[name]().double() - exact).abs().max() / exact.std()).item()
        time_each = 1000 * found / len(exact)
        print(f"{name:<56} {time_each:7.2f} ms  {first / found:5.2f} x  error {error:.1e}", flush=True)


def ceiling(feature: str, x: Tensor, repeats: int, clock: Callable[[], float]) -> str:
    """The operations of the network, and the peak speed of the machine."""
    with FlopCounterMode(display=False) as counter:
        network(feature)(x[:1])
    a = torch.randn(2000, 2000)
    seconds = measure({"product": lambda: a @ a}, repeats, clock)["product"]
    return (
        f"{counter.get_total_flops() / 1e9:.2f} GFLOP per image; "
        f"a matrix product of 2000 x 2000 reaches {16 / seconds:.0f} GFLOP/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--feature", default="768")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--size", type=int, default=32, help="size of the images before resizing")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--cpu-time", action="store_true", help="measure CPU time instead of wall time, for busy machines"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    pixels = np.random.default_rng(0).integers(0, 256, (arguments.images, 3, arguments.size, arguments.size), np.uint8)
    images = torch.from_numpy(pixels)
    with torch.inference_mode():
        x = pytorch_fid(images)
        print(ceiling(arguments.feature, x, arguments.repeats, clock))
        exact = network(arguments.feature).double()(x.double())[arguments.feature]
        report(networks(arguments.feature, x, arguments.batches), exact, arguments.repeats, clock)
        wide = images.double()
        bilinear = F.interpolate(wide / 255, size=(299, 299), mode="bilinear", align_corners=False)
        bicubic = F.interpolate(wide, size=(299, 299), mode="bicubic", antialias=True).clamp(0, 255)
        report(bilinear_ways(images), 2 * bilinear - 1, arguments.repeats, clock)
        report(bicubic_ways(images), (bicubic - 128) / 128, arguments.repeats, clock)


if __name__ == "__main__":
    main()
