"""The overhead of energy counting: seconds of a forward pass with and without it, interleaved, and its memory.

    python benchmarks/energy_overhead.py [--repeats 9]

Time is CPU time of the process (on a busy machine wall time would include other processes). Memory is the largest sum
of bytes alive at once in tensors made by the hooks, compared with the mask (one byte per element) of the largest input.
"""

import argparse
import statistics
import time
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sddpm import SpikingUNet2DModel
from sddpm.energy import counting
from sddpm.energy.operations import OperationCounter

NETWORKS = {
    "ch=32, 3 levels, patches of 2, batch 16": ({"base_channels": 32, "channel_mult": (1, 2, 4), "num_res_blocks": 1,
                                                "patch_size": 2}, 16),
    "ch=32, 4 levels, batch 4": ({"base_channels": 32}, 4),
    "ch=128, 4 levels (CIFAR-10 of the paper), batch 1": ({}, 1),
}  # fmt: skip


class Alive(TorchDispatchMode):
    """Bytes of the living tensors made inside, and their maximum."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, torch.Tensor)}
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in given:  # no view
                self._add(tensor.nbytes)
                weakref.finalize(tensor, self._add, -tensor.nbytes)
        return out

    def _add(self, size):
        self.now += size
        self.most = max(self.most, self.now)


def seconds(model, x, counted):
    with torch.no_grad():
        if not counted:
            began = time.process_time()
            model(x, 500)
            return time.process_time() - began
        with counting(model) as counter:
            began = time.process_time()
            model(x, 500)
            counter.take()
            return time.process_time() - began


@torch.no_grad()
def memory(model, x):
    """(maximum bytes of the hooks' tensors, bytes of the mask of the largest layer input)."""
    most, mask = 0, 0
    originals = OperationCounter.synaptic, OperationCounter.neurons

    def measured(original):
        def call(self, name, layer, *tensors):
            nonlocal most, mask
            with Alive() as alive:
                original(self, name, layer, *tensors)
            most, mask = max(most, alive.most), max(mask, tensors[0].numel())

        return call

    OperationCounter.synaptic, OperationCounter.neurons = map(measured, originals)  # type: ignore[method-assign]
    try:
        with counting(model) as counter:
            model(x, 500)
            counter.take()
    finally:
        OperationCounter.synaptic, OperationCounter.neurons = originals  # type: ignore[method-assign]
    return most, mask


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    print(f"{'network':50} {'forward':>9} {'counted':>9} {'ratio':>6} {'memory':>9} {'a mask':>9}")
    for name, (config, batch) in NETWORKS.items():
        torch.manual_seed(0)
        model = SpikingUNet2DModel(**config).train()
        x = torch.randn(batch, 3, 32, 32)
        with torch.no_grad():
            for _ in range(3):
                model(x, 500)  # batch norm learns its inputs, so that neurons fire
        model.eval().to(memory_format=torch.channels_last)
        seconds(model, x, True)
        times = [(seconds(model, x, False), seconds(model, x, True)) for _ in range(repeats)]
        plain, counted = (statistics.median(each) for each in zip(*times, strict=True))
        ratio = statistics.median(b / a for a, b in times)
        most, mask = memory(model, x)
        print(f"{name:50} {plain:7.3f} s {counted:7.3f} s {ratio:6.2f} {most / 2**20:5.2f} MiB {mask / 2**20:5.2f} MiB")


if __name__ == "__main__":
    main()
