"""Batch norm with statistics over time: fused, over several processes, with its running statistics."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from sddpm import native
from sddpm.models.batch_norm import StepBatchNorm2d, frozen_statistics, synchronize_batch_norm
from sddpm.models.layers import StepConv2d
from sddpm.models.spiking_conv import spiking_conv
from sddpm.neurons import Dynamics, SpikingNeuron
from sddpm.neurons.kernels import VARIABLE

# Batch norm alone, before a neuron and a convolution, and alone where it is not fused (channels outermost).
KINDS = ["norm", "spiking conv", "norm, not fused"]


def make():
    torch.manual_seed(0)
    norm, conv = StepBatchNorm2d(5), StepConv2d(5, 5, 3, padding=1)
    layers = nn.ModuleDict({"norm": norm, "conv": conv, "neuron": SpikingNeuron(Dynamics())}).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(3, 6, 5, 4, 2, dtype=torch.double) * 2 + 1
    return layers, x, torch.randn_like(x)


def evaluate(kind, layers, x):
    if "not fused" not in kind:
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])
    if kind == "spiking conv":
        return spiking_conv(x, layers["neuron"], layers["conv"], norm=layers["norm"])
    return layers["norm"](x)


def worker(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for kind in KINDS:
        layers, x, target = make()
        synchronize_batch_norm(layers)
        part = slice(0, 2) if rank == 0 else slice(2, 6)  # processes may hold different numbers of images
        mine = x[:, part].clone().requires_grad_()
        out = evaluate(kind, layers, mine)
        (out * target[:, part]).sum().backward()
        norm = layers["norm"]
        result = [out.detach(), mine.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
        torch.save([*result, norm.num_batches_tracked], f"{folder}/{kind}-{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path, monkeypatch):
    mp.spawn(worker, args=(str(tmp_path),), nprocs=2)

    def close(a, b):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)

    monkeypatch.setenv(VARIABLE, "eager")
    for kind in KINDS:
        parts = [torch.load(tmp_path / f"{kind}-{rank}.pt") for rank in (0, 1)]
        layers, x, target = make()
        whole = x.clone().requires_grad_()
        out = evaluate(kind, layers, whole)
        (out * target).sum().backward()
        norm = layers["norm"]
        close(torch.cat([p[0] for p in parts], dim=1), out)
        close(torch.cat([p[1] for p in parts], dim=1), whole.grad)
        close(parts[0][2] + parts[1][2], norm.weight.grad)
        close(parts[0][3] + parts[1][3], norm.bias.grad)
        for part in parts:
            close(part[4], norm.running_mean)
            close(part[5], norm.running_var)
            assert part[6] == norm.num_batches_tracked == 1


def innermost(*shape):
    T, B, C, H, W = shape
    x = torch.randn(T * B, C, H, W, dtype=torch.double)
    return x.contiguous(memory_format=torch.channels_last).unflatten(0, (T, B))


@pytest.mark.skipif(native.library() is None, reason="the native kernels were not built")
@pytest.mark.parametrize("add", [False, True])
def test_fused_gradients_are_the_derivatives(add):
    """By finite differences; batch norm is smooth."""
    norm = StepBatchNorm2d(3).double()
    x, rest = innermost(2, 2, 3, 2, 3).requires_grad_(), innermost(2, 2, 3, 2, 3).requires_grad_()

    def function(x, rest, weight, bias):
        with frozen_statistics(norm):
            out = torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x, rest if add else None))
        assert type(out.grad_fn).__name__ == "_NormaliseBackward"
        return out

    weight, bias = torch.randn(3).double().requires_grad_(), torch.randn(3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda *inputs: function(*inputs) + 0 * inputs[1], (x, rest, weight, bias))


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("kind", ["fused", "eager"])
def test_running_statistics_are_pytorchs(kind, momentum, monkeypatch):
    monkeypatch.setenv(VARIABLE, "auto" if kind == "fused" else "eager")
    ours = StepBatchNorm2d(3, momentum=momentum).double()
    theirs = nn.BatchNorm2d(3, momentum=momentum).double()
    for offset in (0, 100, -3):
        x = innermost(2, 2, 3, 4, 5) + offset
        out = ours(x)
        assert torch.allclose(out, theirs(x.flatten(0, 1)).unflatten(0, (2, 2)), rtol=1e-10, atol=1e-10)
    for name, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value, rtol=1e-12, atol=0), name
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with frozen_statistics(ours):
        assert torch.equal(ours(x), out)
    assert all(torch.equal(before[name], value) for name, value in ours.state_dict().items())
    ours(x + 1)
    assert not torch.equal(before["running_mean"], ours.running_mean)


@pytest.mark.skipif(native.library() is None, reason="the native kernels were not built")
def test_large_means_do_not_cancel():
    """float32 numbers around 1000 with deviation 1: the sum of squares would lose the variance."""
    x = (innermost(4, 8, 3, 16, 16) + 1000).float()
    norm = StepBatchNorm2d(3)
    out = norm(x)
    assert type(out.grad_fn).__name__ == "_NormaliseBackward"
    exact = nn.functional.batch_norm(x.double().flatten(0, 1), None, None, training=True).unflatten(0, (4, 8))
    assert (out - exact).abs().max() < 1e-3  # the numbers themselves are rounded by 6e-5
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * x.double().transpose(0, 2).flatten(1).var(1).float(), rtol=1e-6)
