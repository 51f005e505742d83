"""Convolutions of a bf16 training step: our kernels for matrix units (AMX) compared with PyTorch's oneDNN.

    python benchmarks/training_convolutions.py [--repeats 10] [--all]

Prints GFLOP/s on one thread, counted as direct convolutions, from the lowest CPU time of several interleaved runs.
Columns are images times time steps, input and output channels, height and width; --all adds strides, 1x1 convolutions
and those after upsampling.
"""

import argparse
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from sddpm.models.kernels import amx

SHAPES = [(256, 64, 64, 16), (256, 128, 64, 16), (256, 192, 64, 16), (256, 128, 128, 8), (256, 256, 128, 8),
          (256, 128, 128, 4), (256, 256, 128, 4), (256, 32, 32, 32), (32, 128, 128, 32)]  # fmt: skip
PLAIN = (3, 1, False)  # kernel, stride, upsample
OTHERS = [(3, 2, False), (1, 1, False), (3, 1, True)]
GRADIENT = torch.ops.aten.convolution_backward


def fastest(tasks: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The lowest CPU seconds of each task; the tasks are interleaved."""
    seconds = dict.fromkeys(tasks, float("inf"))
    for _ in range(repeats + 1):
        for name, task in tasks.items():
            start = time.process_time()
            task()
            seconds[name] = min(seconds[name], time.process_time() - start)
    return seconds


def innermost(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16().contiguous(memory_format=torch.channels_last)


def measure(shape: tuple[int, int, int, int], kind: tuple[int, int, bool], repeats: int) -> str:
    (N, C, out, size), (kernel, stride, upsample) = shape, kind
    large, out_size = 2 * size if upsample else size, 2 * size if upsample else -(-size // stride)
    x, grad, weight = (
        innermost(N, C, size, size),
        innermost(N, out, out_size, out_size),
        torch.randn(out, C, kernel, kernel),
    )
    weight, bias = weight.contiguous(memory_format=torch.channels_last), torch.randn(out)
    narrow, enlarged = weight.bfloat16(), innermost(N, C, large, large)
    geometry = ([stride] * 2, [kernel // 2] * 2, [1, 1], False, [0, 0], 1)

    def images() -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="nearest") if upsample else x

    def theirs_input() -> Tensor:
        result = GRADIENT(grad, enlarged, narrow, None, *geometry, [True, False, False])[0]
        sizes = ((large, large), x.shape, 2.0, 2.0)
        return torch.ops.aten.upsample_nearest2d_backward(result, *sizes) if upsample else result

    options = {"stride": stride, "upsample": upsample}
    tasks = {
        "forward": lambda: amx.convolve(x, weight, bias, **options),
        "forward of oneDNN": lambda: torch.convolution(images(), narrow, bias.bfloat16(), *geometry),
        "input": lambda: amx.input_gradient(grad, weight, x.shape, **options),
        "input of oneDNN": theirs_input,
        "weight": lambda: amx.weight_gradient(x, grad, kernel=kernel, **options),
        "weight of oneDNN": lambda: GRADIENT(grad, images(), narrow, [out], *geometry, [False, True, True]),
    }
    seconds = fastest(tasks, repeats)
    work = 2e-9 * kernel**2 * N * C * out * out_size**2
    speeds = (f"{part} {work / seconds[part]:5.0f} : {work / seconds[f'{part} of oneDNN']:5.0f}"
              for part in ("forward", "input", "weight"))  # fmt: skip
    name = f"{kernel}x{kernel}" + f" / {stride}" * (stride > 1) + " upsampled" * upsample
    return f"{N:4} x {C:3} -> {out:3}, {size:2}x{size:<2} {name:14}  " + "   ".join(speeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    if not amx.supported():
        parser.exit(1, "this machine has no AMX, or the kernels were not built\n")
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}; GFLOP/s, ours : oneDNN's", flush=True)
    for kind in [PLAIN, *(OTHERS if args.all else [])]:
        for shape in SHAPES if kind == PLAIN else SHAPES[1:6:2]:
            print(measure(shape, kind, args.repeats), flush=True)


if __name__ == "__main__":
    main()
