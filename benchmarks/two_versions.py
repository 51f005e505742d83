"""Two versions of the package, interleaved: ratios of the CPU time of an evaluation and of a training step.

    python benchmarks/two_versions.py OLD NEW [--channels 32] [--batch 8] [--training-batch 4] [--rounds 40]
                                      [--repeats 3] [--forms eager exact fast float32 bf16] [--out FILE.json]

OLD and NEW are working trees, each with its native code built (`python setup.py build_ext --inplace`). Each version
runs in its own process, and the two versions of a form alternate: `--repeats` evaluations of one, then of the other, so
that both have the same load of the machine. Printed are the fastest and median milliseconds of each, and the median of
the ratios of neighbours, new over old, with a 95 % interval (bootstrap over rounds). One thread. The timed work is that
of sampling_speed.py and training_step.py. Giving OLD twice shows the noise of the method.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

SAMPLING, TRAINING = ("eager", "exact", "fast"), ("float32", "bf16")
HERE = Path(__file__).resolve()


class Worker:
    """A process of one version, which runs a form on request and reports the time."""

    def __init__(self, tree: Path, form: str, channels: int, batch: int):
        environment = os.environ | {"PYTHONPATH": str(tree.resolve() / "src"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(HERE), "--worker", form, str(channels), str(batch)]
        self.process = subprocess.Popen(
            command, env=environment, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.source = self._line()

    def seconds(self, repeats: int) -> float:
        """CPU seconds of one run, the mean of `repeats`."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{repeats}\n")
        self.process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise SystemExit(f"a process of {self.process.args} ended with {self.process.wait()}")
        return line


def work(form: str, channels: int, batch: int) -> None:
    """The loop of a worker: one run as a warm-up, then the number of runs in each line of stdin."""
    import sddpm

    torch.set_num_threads(1)
    run = sampling(form, channels, batch) if form in SAMPLING else training(form, channels, batch)
    run()
    print(sddpm.__file__, flush=True)
    for line in sys.stdin:
        start = time.process_time()
        for _ in range(int(line)):
            run()
        print((time.process_time() - start) / int(line), flush=True)


def sampling(form: str, channels: int, batch: int) -> Callable[[], object]:
    from sampling_speed import build, evaluate, noise

    from sddpm.inference import compile_model

    unet = build("paper", channels, T=4)
    compiled = unet if form == "eager" else compile_model(unet, form)
    x = noise(unet, batch)
    return lambda: evaluate(compiled, x)


def training(form: str, channels: int, batch: int) -> Callable[[], object]:
    from training_step import FORMS, Training

    from sddpm.training.allocator import keep_large_buffers

    keep_large_buffers()
    task = Training(FORMS[form], channels, 4, 32)
    return lambda: task.step(batch)


def compare(old: Path, new: Path, form: str, channels: int, batch: int, rounds: int, repeats: int) -> dict:
    """Milliseconds and ratios of a form."""
    workers = [Worker(tree, form, channels, batch) for tree in (old, new)]
    times = []
    for i in range(rounds):
        order = (0, 1) if i % 2 == 0 else (1, 0)
        pair = {k: 1e3 * workers[k].seconds(repeats) for k in order}
        times.append((pair[0], pair[1]))
    for worker in workers:
        worker.close()
    ratios = torch.tensor([b / a for a, b in times], dtype=torch.float64)
    draws = torch.randint(rounds, (2000, rounds), generator=torch.Generator().manual_seed(0))
    low, high = ratios[draws].median(dim=1).values.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    olds, news = zip(*times, strict=True)
    return {
        "form": form,
        "channels": channels,
        "batch": batch,
        "old_ms": [min(olds), statistics.median(olds)],
        "new_ms": [min(news), statistics.median(news)],
        "ratio": [statistics.median(ratios.tolist()), low, high],
        "rounds": rounds,
        "repeats": repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--training-batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--forms", nargs="+", choices=SAMPLING + TRAINING, default=SAMPLING + TRAINING)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    for form in args.forms:
        batch = args.batch if form in SAMPLING else args.training_batch
        rows.append(compare(args.old, args.new, form, args.channels, batch, args.rounds, args.repeats))
        row = rows[-1]
        (old_best, old), (new_best, new), (ratio, low, high) = row["old_ms"], row["new_ms"], row["ratio"]
        print(
            f"{form:8} fastest {old_best:7.1f} {new_best:7.1f} ms, median {old:7.1f} {new:7.1f} ms,"
            f" new / old {ratio:.3f} [{low:.3f}, {high:.3f}]",
            flush=True,
        )
    if args.out is not None:
        args.out.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    work(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])) if sys.argv[1:2] == ["--worker"] else main()
