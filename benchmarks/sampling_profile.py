"""The time of a compiled network by part, and of spike convolutions by resolution.

    python benchmarks/sampling_profile.py [--model paper|small] [--channels 128] [--T 4] [--batch 1 8] [--mode exact]
                                          [--threads N] [--repeats 9] [--cpu-time]

Each part is timed around its call; printed are medians of its sum over one evaluation in milliseconds and percent of
the whole; `rest` is the time between the calls. For spike convolutions also GMAC/s, counted as if dense, compared with
those of a float32 matrix product and of an 8-bit integer convolution in the same process. Exact mode's weights would
need three such integer convolutions, so a third of that speed is the upper limit.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import torch
from sampling_speed import MODELS, build, noise
from spike_conv import peaks
from torch import Tensor

from sddpm.inference.arithmetic import Arithmetic
from sddpm.inference.compiled import MODES
from sddpm.inference.dense import Dense
from sddpm.inference.folding import FoldedConv
from sddpm.inference.network import FoldedUNet
from sddpm.neurons import SpikingNeuron


class Clock:
    """Seconds and multiply-accumulates by part, of one evaluation."""

    def __init__(self, now: Callable[[], float]):
        self.now = now
        self.clear()

    def clear(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.macs: dict[str, int] = defaultdict(int)

    def wrap(self, part: str | Callable[[Tensor], str], function: Callable, macs_of: int = 0) -> Callable:
        """`function`, timed; macs_of: multiply-accumulates of one element of its result."""

        def timed(*args, **kwargs):
            start = self.now()
            out = function(*args, **kwargs)
            name = part if isinstance(part, str) else part(out)
            self.seconds[name] += self.now() - start
            self.macs[name] += macs_of * out.numel()
            return out

        return timed


class TimedDense:
    def __init__(self, dense: Dense, clock: Clock):
        self.dense, self.clock = dense, clock

    def conv(self, folded: FoldedConv) -> Callable:
        part = "shortcuts" if folded.weight.shape[-1] == 1 else "first and last convolutions"
        return self.clock.wrap(part, self.dense.conv(folded), folded.weight[0].numel())

    def silu(self, *args: Tensor) -> Callable:
        return self.clock.wrap("readout", self.dense.silu(*args))

    def readout(self, *args: Tensor) -> Callable:
        return self.clock.wrap("readout", self.dense.readout(*args))


class TimedConv:
    def __init__(self, conv, macs: int, clock: Clock):
        self.call = clock.wrap(lambda out: f"spike convolutions at {out.shape[2]}x{out.shape[3]}", conv, macs)
        self.fire = clock.wrap(lambda out: f"spike convolutions at {out.shape[2]}x{out.shape[3]}", conv.fire, macs)

    def __call__(self, *args, **kwargs) -> Tensor:
        return self.call(*args, **kwargs)


class Timed(Arithmetic):
    """An arithmetic whose parts are timed."""

    clock: Clock

    def dense(self):
        return TimedDense(super().dense(), self.clock)  # type: ignore[arg-type]

    def spike_conv(self, folded: FoldedConv, **options):
        return TimedConv(super().spike_conv(folded, **options), folded.weight[0].numel(), self.clock)

    def fire(self, neuron: SpikingNeuron, parts: list[Tensor]) -> Tensor:
        return self.clock.wrap("neurons on their own", super().fire)(neuron, parts)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="paper")
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--T", type=int, default=4)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--mode", choices=MODES, default="exact")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--cpu-time", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = Clock(time.process_time if args.cpu_time else time.perf_counter)
    speeds = ", ".join(f"{name} {speed / 1e9:.1f} GMAC/s" for name, speed in peaks(args.repeats, clock.now).items())
    print(f"{args.mode}, ch={args.channels}, T={args.T}, {args.threads} threads; {speeds}")
    unet = build(args.model, args.channels, args.T)
    Timed.clock = clock
    network = FoldedUNet(unet, Timed(torch.device("cpu"), torch.float32, args.mode))
    for batch in args.batch:
        x, rows, macs = noise(unet, batch), [], {}
        network(x, 500)
        for _ in range(args.repeats):
            clock.clear()
            start = clock.now()
            network(x, 500)
            whole = clock.now() - start
            rows.append({**clock.seconds, "rest": whole - sum(clock.seconds.values()), "whole": whole})
            macs = dict(clock.macs)
        found = {part: statistics.median(row[part] for row in rows) for part in rows[0]}
        print(f"\nbatch {batch}")
        for part, seconds in sorted(found.items(), key=lambda item: -item[1]):
            speed = f"{macs[part] / seconds / 1e9:8.1f} GMAC/s" if macs.get(part) else ""
            print(f"{part:32} {seconds * 1e3:8.2f} ms {seconds / found['whole']:7.1%} {speed}")


if __name__ == "__main__":
    main()
