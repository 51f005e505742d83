"""Stages of benchmarks/gpu.py about single layers. Each yields rows: the case, and numbers by name."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from gpu_measure import Bench, Row, Task, tf32
from torch import Tensor

from sddpm.models.batch_norm import StepBatchNorm2d
from sddpm.models.kernels.fused_layers import normalize_and_fire
from sddpm.neurons import Dynamics, SpikingNeuron, functional, kernels

IF = Dynamics()  # SDDPM's: hard reset, attached, ATan(2)


def spikingjelly_neuron() -> Callable[[Tensor], Tensor]:
    from spikingjelly.activation_based import functional as sj
    from spikingjelly.activation_based import neuron, surrogate

    node = neuron.IFNode(surrogate_function=surrogate.ATan(), step_mode="m")

    def fire(x: Tensor) -> Tensor:
        sj.reset_net(node)
        return node(x)

    return fire


def neurons(bench: Bench, _options: Any) -> Iterator[Row]:
    """The multi-step neuron: ours fused, plain, compiled by torch.compile, and spikingjelly's."""
    implementations: dict[str, Callable[[Tensor], Tensor]] = {
        "fused": lambda x: kernels.multi_step(x, IF),
        "plain": lambda x: functional.multi_step(x, IF),
    }
    try:
        implementations["spikingjelly"] = spikingjelly_neuron()
    except ImportError as error:
        yield {"what": "spikingjelly", "error": str(error)}
    if not bench.quick:
        implementations["torch.compile"] = torch.compile(implementations["plain"], dynamic=False)
    shapes = [(2, 2, 16, 8, 8)] if bench.quick else [(4, 128, 128, 32, 32), (4, 128, 256, 16, 16), (4, 128, 512, 4, 4)]
    for shape in shapes:
        for dtype in (torch.bfloat16, torch.float32):
            x = torch.randn(shape, device=bench.device).to(dtype)
            grad, target = torch.randn_like(x), torch.empty_like(x)
            for backward in (False, True):
                tasks: dict[str, Task] = {"copy": lambda t=target, x=x: t.copy_(x)}
                for name, fire in implementations.items():
                    tasks[name] = both(fire, x, grad) if backward else forward(fire, x)
                seconds = bench.medians(tasks, budget=1.5)
                passes = 5 if backward else 2  # the minimum: currents (twice), spikes, and two gradients
                yield {
                    "what": f"{list(shape)} {str(dtype)[6:]}, {'forward + backward' if backward else 'forward'}",
                    "fused ms": seconds["fused"] * 1e3,
                    "fused GB/s": passes * x.nbytes / seconds["fused"] / 1e9,
                    "copy GB/s": 2 * x.nbytes / seconds["copy"] / 1e9,
                    **{
                        f"{name} / fused": seconds[name] / seconds["fused"]
                        for name in implementations
                        if name != "fused"
                    },
                }


def forward(fire: Callable[[Tensor], Tensor], x: Tensor) -> Task:
    def task() -> None:
        with torch.no_grad():
            fire(x)

    return task


def both(fire: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Task:
    leaf = x.detach().requires_grad_()
    return lambda: torch.autograd.grad(fire(leaf), leaf, grad)


def norms(bench: Bench, _options: Any) -> Iterator[Row]:
    """Batch norm, time embedding and neuron in training mode: fused, and as separate operations."""
    shapes = [(2, 2, 16, 8, 8)] if bench.quick else [(4, 128, 128, 32, 32), (4, 128, 256, 16, 16)]
    for shape in shapes:
        x = torch.randn(shape, device=bench.device).to(torch.bfloat16)
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, shape[:2])
        norm = StepBatchNorm2d(shape[2]).to(bench.device)
        shift, grad = torch.randn(shape[1:3], device=bench.device).to(torch.bfloat16), torch.randn_like(x)
        ways = {
            "fused": lambda x, norm=norm, shift=shift: normalize_and_fire(norm, SpikingNeuron(IF), x, shift),
            "in turn": lambda x, norm=norm, shift=shift: kernels.multi_step(norm(x) + shift[:, :, None, None], IF),
        }
        tasks = {name: both(way, x, grad) for name, way in ways.items()}
        seconds = bench.medians(tasks, budget=1.5)
        memory = {name: bench.peak_memory(task) for name, task in tasks.items()}
        yield {
            "what": f"{list(shape)} bfloat16, forward + backward",
            "fused ms": seconds["fused"] * 1e3,
            "in turn / fused": seconds["in turn"] / seconds["fused"],
            "fused MiB": memory["fused"],
            "in turn MiB": memory["in turn"],
        }


def sweep(bench: Bench, _options: Any) -> Iterator[Row]:
    """The speed of the fused neuron by size of blocks and number of warps, for choosing these."""
    from sddpm.neurons.kernels import triton_neuron

    shape = (4, 2, 16, 8, 8) if bench.quick else (4, 128, 128, 32, 32)
    x = torch.randn(shape, device=bench.device).to(torch.bfloat16)
    grad, chosen = torch.randn_like(x), (triton_neuron.block_size, triton_neuron.WARPS)
    try:
        for block in (256,) if bench.quick else (256, 512, 1024, 2048, 4096):
            for warps in (4,) if bench.quick else (2, 4, 8):
                triton_neuron.block_size, triton_neuron.WARPS = (lambda T, block=block: block), warps
                fire = lambda x: kernels.multi_step(x, IF)  # noqa: E731
                seconds = bench.medians({"forward": forward(fire, x), "both": both(fire, x, grad)}, budget=0.5)
                yield {
                    "what": f"block {block}, {warps} warps",
                    "forward GB/s": 2 * x.nbytes / seconds["forward"] / 1e9,
                    "forward + backward GB/s": 5 * x.nbytes / seconds["both"] / 1e9,
                }
    finally:
        triton_neuron.block_size, triton_neuron.WARPS = chosen


def exactness(bench: Bench, _options: Any) -> Iterator[Row]:
    """A convolution over spikes in several arithmetics: time, and error against float64 in deviations of the result.

    TF32 has 10 bits of fraction, so a float32 weight is the sum of two or three TF32 numbers.
    """
    channels, size, batch = (8, 8, 2) if bench.quick else (256, 16, 512)
    spikes = (torch.rand(batch, channels, size, size, device=bench.device) < 0.2).float()
    spikes = spikes.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, device=bench.device, dtype=torch.float64) / (9 * channels) ** 0.5
    few = spikes[:4]
    exact = F.conv2d(few.double().contiguous(), weight, padding=1)

    def pieces(count: int) -> list[Tensor]:
        found, rest = [], weight.clone()
        for _ in range(count):
            bits = rest.float().view(torch.int32) + 0x1000  # rounds to 10 bits of fraction
            found.append((bits & ~0x1FFF).view(torch.float32).contiguous(memory_format=torch.channels_last))
            rest = rest - found[-1]
        return found

    def summed(parts: list[Tensor]) -> Callable[[Tensor], Tensor]:
        stacked = torch.cat(parts)
        return lambda x: F.conv2d(x, stacked, padding=1).unflatten(1, (len(parts), channels)).flip(1).sum(1)

    single = weight.float().contiguous(memory_format=torch.channels_last)
    arithmetics: dict[str, tuple[bool, Callable[[Tensor], Tensor]]] = {
        "float32": (False, lambda x: F.conv2d(x, single, padding=1)),
        "TF32": (True, lambda x: F.conv2d(x, single, padding=1)),
        "2 x TF32": (True, summed(pieces(2))),
        "3 x TF32": (True, summed(pieces(3))),
        "bf16": (True, lambda x: F.conv2d(x.bfloat16(), single.bfloat16(), padding=1)),
        "fp16": (True, lambda x: F.conv2d(x.half(), single.half(), padding=1)),
    }
    for name, (allowed, conv) in arithmetics.items():
        with tf32(allowed), torch.no_grad():
            seconds = bench.medians({name: lambda conv=conv: conv(spikes)}, budget=0.5)[name]
            error = (conv(few).double() - exact) / exact.std()
        yield {
            "what": name,
            "ms": seconds * 1e3,
            "TFLOP/s": 2 * 9 * channels**2 * spikes[:, 0].numel() / seconds / 1e12,
            "largest error": float(error.abs().max()),
            "rms error": float(error.square().mean().sqrt()),
        }
