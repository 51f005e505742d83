"""The quality of a teacher's own pictures with the steps that it has in `sddpm distill`: KAD for equal seeds.

    python benchmarks/teacher_walk.py MODEL DATA [CELL ...] [--evaluations 4] [--samples 1000] [--out FILE.json]

A CELL is GRID:ORDER:SUBSTEPS:SCALE, as in the section `distill` of a config, such as uniform:2:4:1.01. The teacher
runs from each of the student's time steps to the next as in training, and starts again at each: this is the student's
target. MODEL predicts v and draws Fashion-MNIST or MNIST; DATA: folder with both and fad.
KAD as in other_samplers.py.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from paired_kad import PairedKad, data_set
from torch import Tensor

from sddpm import load_pipeline
from sddpm.diffusion.distillation import GRIDS, Velocity, angles, grid_timesteps, walk
from sddpm.pipelines import SpikingDiffusionPipeline

CELLS = [f"{grid}:2:4:{scale}" for grid in GRIDS for scale in ("1", "1.01")]


def sampler(cell: str, evaluations: int, velocity: Velocity, table: Tensor) -> Callable[..., Tensor]:
    """The pictures at the end of the teacher's steps, from noise. table: alphas_cumprod [N]."""
    grid, order, substeps, scale = cell.split(":")
    phi = angles(table)
    nodes = torch.tensor(grid_timesteps(grid, evaluations * int(substeps), table)).view(evaluations, int(substeps))
    ends = torch.cat([phi[nodes[1:, 0]], phi.new_zeros(1)])

    def draw(noise: Tensor, _: object) -> Tensor:
        z = noise
        for row, end in zip(nodes, ends, strict=True):
            steps = [t.expand(len(z)) for t in row]
            z = walk(velocity, z, steps, end.expand(len(z)), phi, order=int(order), x0_scale=float(scale))
        return z

    return draw


def velocity_of(pipeline: SpikingDiffusionPipeline, engine: str) -> Velocity:
    """The prediction of v of a pipeline's network."""
    network = pipeline.model_for(engine)
    return lambda z, t: network(z, t, return_dict=False)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("cells", nargs="*", default=CELLS, metavar="CELL")
    parser.add_argument("--evaluations", type=int, default=4)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--engine", default="fast")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    pipeline = load_pipeline(args.model)
    velocity, table = velocity_of(pipeline, args.engine), pipeline.scheduler.alphas_cumprod
    score = PairedKad(args.data, data_set(args.model), pipeline.unet.config.sample_size, args.samples)
    rows = [score.row(cell, sampler(cell, args.evaluations, velocity, table)) for cell in args.cells]
    if args.out is not None:
        args.out.write_text(json.dumps({"model": args.model, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
