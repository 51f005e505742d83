"""Which step of a distilled student costs quality: KAD when its teacher takes one of the steps, for equal seeds.

    python benchmarks/hard_steps.py TEACHER STUDENT DATA [--samples 500] [--order 2] [--x0-scale 1.01]

The teacher takes a step of the student in four, as in teacher_walk.py, with this order and x0_scale; the student takes
the others with its own x0_scale. DATA: folder with fashion-mnist, mnist and fad. KAD as in other_samplers.py.
"""

import argparse
from pathlib import Path

import torch
from paired_kad import PairedKad, data_set
from teacher_walk import velocity_of
from torch import Tensor

from sddpm import load_pipeline
from sddpm.diffusion.distillation import angles, walk
from sddpm.diffusion.timesteps import kept_timesteps

SUBSTEPS = 4


def steps_between(phi: Tensor, nodes: list[int]) -> Tensor:
    """Time steps [steps, SUBSTEPS]: from each of the student's, evenly in log-SNR towards the next, at last t = 0."""
    level = phi.tan().log()
    rows = []
    for t, after in zip(nodes, [*nodes[1:], 0], strict=True):
        wanted = [level[t] + (level[after] - level[t]) * i / SUBSTEPS for i in range(SUBSTEPS)]
        rows.append([int((level - each).abs().argmin()) for each in wanted])
    return torch.tensor(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("student")
    parser.add_argument("data", type=Path)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--order", type=int, default=2)
    parser.add_argument("--x0-scale", type=float, default=1.01)
    parser.add_argument("--engine", default="fast")
    args = parser.parse_args()
    teacher, student = load_pipeline(args.teacher), load_pipeline(args.student)
    nodes = kept_timesteps(student.scheduler.config)
    if nodes is None:
        raise SystemExit(f"{args.student} has no time steps of its own: it must be distilled")
    phi = angles(teacher.scheduler.alphas_cumprod)
    rows = steps_between(phi, list(nodes))
    ends = torch.cat([phi[rows[1:, 0]], phi.new_zeros(1)])
    by_teacher, by_student = (velocity_of(each, args.engine) for each in (teacher, student))

    def draw(of_teacher: set[int], noise: Tensor) -> Tensor:
        z = noise
        for i, row in enumerate(rows):
            steps, end = [t.expand(len(z)) for t in row], ends[i].expand(len(z))
            if i in of_teacher:
                z = walk(by_teacher, z, steps, end, phi, order=args.order, x0_scale=args.x0_scale)
            else:
                z = walk(by_student, z, steps[:1], end, phi, x0_scale=student.x0_scale)
        return z

    score = PairedKad(args.data, data_set(args.teacher), student.unet.config.sample_size, args.samples)
    score.row("teacher in all steps", lambda noise, _: draw(set(range(len(rows))), noise))
    score.row("teacher in no step", lambda noise, _: draw(set(), noise))
    for i, t in enumerate(nodes):
        score.row(f"teacher from t = {t}", lambda noise, _, i=i: draw({i}, noise))


if __name__ == "__main__":
    main()
