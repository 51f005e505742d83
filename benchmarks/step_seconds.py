"""How many training steps fit into a given time, from a measurement of a step on this machine.

    python benchmarks/step_seconds.py CONFIG SECONDS [--set KEY=VALUE ...] [--init-from MODEL] [--wall] [--trial 4 28]

CONFIG is a YAML file or the name of a config. Prints the number of steps that take SECONDS of CPU time, or with --wall
of wall time (for a GPU, for example).
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sddpm.training import Config, load_config, train
from sddpm.training.config_files import check_config


def with_train(config: Config, **values: object) -> Config:
    """The config with other values in its section `train`."""
    content = config.to_dict()
    return check_config({**content, "train": content["train"] | values}, "the benchmark")


def seconds_a_step(
    config: Config,
    start: Path | None = None,
    clock: Callable[[], float] = time.process_time,
    steps: tuple[int, int] = (4, 28),
) -> float:
    """Seconds per step of a training, CPU time unless another clock is given: those of 28 steps minus those of four, so
    that one-time work is excluded. start: the model to start from; steps: other numbers of steps."""
    times = []
    for count in steps:
        with tempfile.TemporaryDirectory() as folder:
            began = clock()
            train(with_train(config, steps=count), Path(folder, "run"), init_from=start, progress=False)
            times.append(clock() - began)
    return (times[1] - times[0]) / (steps[1] - steps[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--init-from", type=Path, metavar="MODEL")
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--trial", type=int, nargs=2, default=(4, 28), help="steps of the two timed trainings")
    args = parser.parse_args()
    quiet = ["train.sample_every=0", "train.tensorboard=false", "train.checkpoint_every=100000"]
    config = load_config(args.config, [*args.set, *quiet])
    clock = time.perf_counter if args.wall else time.process_time
    print(max(1, round(args.seconds / seconds_a_step(config, args.init_from, clock, tuple(args.trial)))))


if __name__ == "__main__":
    main()
