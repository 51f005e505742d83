"""Speckles and the initial noise: how many pixels stand out from their neighbours, by the strength of their x_T.

    python benchmarks/speckles.py MODEL [--samples 40] [--solver dpm++] [--steps 20] [--clips 2.5 2 1.7]

A pixel of a colour stands out if it differs from the median of the 3 x 3 pixels around it by more than 0.2 of the range
of values. The first table is by |x_T| in standard deviations; sign: the share of those that stand out whose difference
has the sign of their noise. The second has the share of all pixels for each limit of the noise (`--noise-clip`).
"""

import argparse
import math
from itertools import pairwise

import torch
from measuring import run_benchmark
from torch import Tensor
from torch.nn.functional import pad

from sddpm import load_pipeline
from sddpm.diffusion.noise import seeded_noise
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.pipelines.class_guidance import drawn_by_seed

LEVELS = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, math.inf)
OUTSTANDING = 0.2


def standing_out(images: Tensor) -> Tensor:
    """The difference of each pixel [B, C, H, W] from the median of the 3 x 3 pixels around it."""
    around = pad(images, (1, 1, 1, 1), mode="reflect").unfold(2, 3, 1).unfold(3, 3, 1)
    return images - around.flatten(-2).median(-1).values


def drawn(pipe: SpikingDiffusionPipeline, args: argparse.Namespace, clip: float) -> Tensor:
    """Samples [B, C, H, W] in [0, 1]."""
    return torch.as_tensor(
        pipe(
            seeds=range(args.samples),
            class_labels=drawn_by_seed(pipe.num_classes),
            solver=args.solver,
            num_inference_steps=args.steps,
            noise_clip=clip,
            engine="fast",
            output_type="pt",
        ).images
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--solver", default="dpm++")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--clips", type=float, nargs="*", default=[2.5, 2.0, 1.7])
    args = parser.parse_args()
    pipe = load_pipeline(args.model)
    images = drawn(pipe, args, math.inf)
    noise, found = seeded_noise(range(args.samples), images.shape[1:]), standing_out(images)
    print("| noise | share of pixels | of them stand out | sign |\n|---|---|---|---|")
    for low, high in pairwise(LEVELS):
        here = (noise.abs() >= low) & (noise.abs() < high)
        out = here & (found.abs() > OUTSTANDING)
        alike = (found.sign() == noise.sign())[out].float().mean()
        print(f"| {low:g} to {high:g} | {here.float().mean():.1%} | {out.sum() / here.sum():.1%} | {alike:.0%} |")
    print("\n| noise_clip | all pixels that stand out |\n|---|---|")
    for clip in (math.inf, *args.clips):
        share = (standing_out(drawn(pipe, args, clip)).abs() > OUTSTANDING).float().mean()
        print(f"| {clip:g} | {share:.2%} |", flush=True)


if __name__ == "__main__":
    run_benchmark(main)
