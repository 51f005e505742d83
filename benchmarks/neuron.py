"""Multi-step IF neurons: plain PyTorch, the fused kernel and spikingjelly, interleaved in one process.

    python benchmarks/neuron.py [--repeats 30] [--threads N] [--shape T B C H W] [--cpu-time]

Prints the median time of plain PyTorch, the speed of the others relative to it (ratios of medians), and the time of the
fused kernel relative to a copy of the currents. Buffers of some MB that glibc returns to the system after a call slow
all columns; MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=34359738368 in the environment keeps them.
In bfloat16 spikingjelly's membranes are bfloat16 and ours float32.
Without spikingjelly (`pip install --no-deps spikingjelly==2.0.0 loguru`) its column is empty.
"""

import argparse
import time
from collections.abc import Callable

import torch
from measuring import medians
from torch import Tensor

from sddpm import native
from sddpm.neurons import Dynamics, functional
from sddpm.neurons.kernels import cpu, describe

DYNAMICS = Dynamics()  # SDDPM's: IF, hard reset, attached, ATan(2)
SHAPES = [(4, 32, 64, 16, 16), (4, 4, 128, 32, 32), (4, 1, 32, 32, 32)]


def implementations() -> dict[str, Callable[[Tensor], Tensor]]:
    """The multi-step neuron by name, plain PyTorch first."""
    found: dict[str, Callable[[Tensor], Tensor]] = {"eager": lambda x: functional.multi_step(x, DYNAMICS)}
    if native.library() is not None:
        found["fused"] = lambda x: cpu.multi_step(x, DYNAMICS)
    try:
        from spikingjelly.activation_based import functional as sj
        from spikingjelly.activation_based import neuron, surrogate
    except ImportError:
        return found
    node = neuron.IFNode(surrogate_function=surrogate.ATan(), step_mode="m")

    def spikingjelly(x: Tensor) -> Tensor:
        sj.reset_net(node)
        return node(x)

    found["spikingjelly"] = spikingjelly
    return found


def forward(function: Callable[[Tensor], Tensor], x: Tensor, _: Tensor) -> None:
    with torch.no_grad():
        function(x)


def forward_backward(function: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> None:
    leaf = x.detach().requires_grad_()
    torch.autograd.grad(function(leaf), leaf, grad)


def currents(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> Tensor:
    T, B, *image = shape
    x = torch.randn(T * B, *image).to(dtype)
    return (x.to(memory_format=torch.channels_last) if layout == "channels_last" else x).unflatten(0, (T, B))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--shape", type=int, nargs=5, metavar=("T", "B", "C", "H", "W"), help="only this one")
    parser.add_argument(
        "--cpu-time", action="store_true", help="measure CPU time of the process, for a busy machine and one thread"
    )
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {describe()}")
    print(
        f"{'[T, B, C, H, W]':22}{'layout':15}{'dtype':10}{'pass':18}"
        f"{'eager ms':>9}{'fused':>8}{'sj':>7}{'fused / sj':>12}{'fused vs copy':>15}"
    )
    for shape in [tuple(options.shape)] if options.shape else SHAPES:
        for layout in ("contiguous", "channels_last"):
            for dtype in (torch.float32, torch.bfloat16):
                x = currents(shape, dtype, layout)
                grad, copy = torch.randn_like(x), torch.empty_like(x)
                for label, run in (("forward", forward), ("forward+backward", forward_backward)):
                    tasks = {n: (lambda f=f, run=run: run(f, x, grad)) for n, f in implementations().items()}  # noqa: B023
                    result = medians(tasks | {"copy": lambda: copy.copy_(x)}, options.repeats, clock)  # noqa: B023
                    eager, fused, sj = (result.get(name) for name in ("eager", "fused", "spikingjelly"))
                    print(
                        f"{list(shape)!s:22}{layout:15}{str(dtype).removeprefix('torch.'):10}{label:18}"
                        f"{result['eager'] * 1e3:9.2f}"
                        f"{ratio(eager, fused):>8}{ratio(eager, sj):>7}{ratio(sj, fused):>12}"
                        f"{ratio(fused, result['copy']):>15}",
                        flush=True,
                    )


def ratio(a: float | None, b: float | None) -> str:
    return f"{a / b:.1f}x" if a and b else "-"


if __name__ == "__main__":
    main()
