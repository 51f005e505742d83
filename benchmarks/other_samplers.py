"""Samplers of other papers, compared with those of this package at ten evaluations: KAD for the same seeds.

    python benchmarks/other_samplers.py MODEL DATA [--steps 10] [--samples 1000] [--x0-scale 1.01] [--out FILE.json]

- `gam`: extrapolated epsilon (Permenter & Yuan, arXiv 2306.04848): each step of DDIM uses
  gam epsilon_i + (1 - gam) epsilon_{i-1}; 1 is DDIM.
- `eta`: DPM-Solver++(2M) with a share of noise (Lu et al., 2022; Gonzalez et al., arXiv 2305.14267): 0 is dpm++, 1 is
  sde-dpm++.
- `churn`: before each step of DPM-Solver++(2M) noise moves the picture back by a part of the stride (Karras et al.,
  2022, algorithm 2), and the step is longer by this part; 0 is dpm++.

MODEL predicts v and draws Fashion-MNIST or MNIST; DATA: folder with both and fad. KAD is the squared MMD with KID's
kernel in the features of FSVAE's autoencoder, against 10,000 training images. The last column compares
with the first row of the table, for the same seeds, with a 95 % interval. All use one evaluation per step.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from paired_kad import PairedKad, data_set
from torch import Tensor

from sddpm import load_pipeline
from sddpm.pipelines.denoise import predict


@dataclass(frozen=True)
class Run:
    """A sampler: order 1 is DDIM, 2 is DPM-Solver++(2M)."""

    name: str
    order: int = 2
    gam: float = 1.0
    eta: float = 0.0
    churn: float = 0.0


RUNS = [
    Run("eta 1 (sde-dpm++)", eta=1.0),
    *(Run(f"eta {eta:g}", eta=eta) for eta in (0.0, 0.3, 0.6, 0.8)),
    *(Run(f"churn {churn:g}", churn=churn) for churn in (0.1, 0.3)),
    *(Run(f"gam {gam:g}", order=1, gam=gam) for gam in (1.0, 1.3, 1.6, 2.0)),
]


def sample(
    run: Run,
    velocity: Callable[[Tensor, int], Tensor],
    z: Tensor,
    levels: list[int],
    table: Tensor,
    scale: float,
    generator: torch.Generator,
) -> Tensor:
    """The pictures [B, ...] in [-1, 1] that a sampler makes from noise.

    velocity: (z, t) -> v. levels: time steps, decreasing. table: alphas_cumprod, float64 [N]. scale: x0_scale.
    """
    x0_before, epsilon_before, h_before = None, None, 0.0
    for i, t in enumerate(levels):
        if run.churn and i > 0:
            back = round(t + run.churn * (levels[i - 1] - t))
            ratio = table[back] / table[t]
            z = ratio.sqrt() * z + (1 - ratio).sqrt() * torch.randn(z.shape, generator=generator, dtype=z.dtype)
            t = back
        alpha, sigma = table[t].sqrt(), (1 - table[t]).sqrt()
        v = velocity(z, t)
        x0 = (scale * (alpha * z - sigma * v)).clamp(-1, 1)
        epsilon = (z - alpha * x0) / sigma
        if i == len(levels) - 1:
            return x0
        alpha_next, sigma_next = table[levels[i + 1]].sqrt(), (1 - table[levels[i + 1]]).sqrt()
        if run.order == 1:
            eps = epsilon if epsilon_before is None else run.gam * epsilon + (1 - run.gam) * epsilon_before
            x0_used = x0 if epsilon_before is None else (z - sigma * eps) / alpha
            z, epsilon_before = alpha_next * x0_used.clamp(-1, 1) + sigma_next * eps, epsilon
            continue
        h = torch.log(alpha_next / sigma_next) - torch.log(alpha / sigma)
        target = x0 if x0_before is None else x0 + (x0 - x0_before) * h / h_before / 2
        decay = torch.exp(-(run.eta**2) * h)
        z = sigma_next / sigma * decay * z + alpha_next * (1 - torch.exp(-h) * decay) * target
        if run.eta:
            z = z + sigma_next * (1 - decay**2).sqrt() * torch.randn(z.shape, generator=generator, dtype=z.dtype)
        x0_before, h_before = x0, h
    return z


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--x0-scale", type=float, default=1.01)
    parser.add_argument("--engine", default="fast")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    pipeline = load_pipeline(args.model)
    model, config = pipeline.model_for(args.engine), pipeline.unet.config
    table = pipeline.scheduler.alphas_cumprod.double()
    levels = [round(len(table) * (1 - i / args.steps)) - 1 for i in range(args.steps)]
    score = PairedKad(args.data, data_set(args.model), config.sample_size, args.samples)
    rows = []
    for run in RUNS:

        def draw(noise: Tensor, generator: torch.Generator, run: Run = run) -> Tensor:
            return sample(run, partial(predict, model), noise, levels, table.float(), args.x0_scale, generator)

        rows.append(score.row(run.name, draw))
    if args.out is not None:
        args.out.write_text(json.dumps({"model": args.model, "steps": args.steps, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
