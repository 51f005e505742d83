"""`sddpm train`: trains a model from a config and writes it to a run folder."""

import json
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from sddpm.cli.app import app
from sddpm.cli.options import MODEL
from sddpm.errors import UserError

if TYPE_CHECKING:
    from sddpm.training import TrainResult


class Device(StrEnum):
    """Where to train."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


@app.command()
def train(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG", help="A YAML file, or the name of a config (sddpm list configs): mnist_small."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="RUN", help="Folder of the run. (default: runs/CONFIG)")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="FOLDER|ZIP", help="Location of the data (data.path of the config).")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the config, e.g. train.lr=1e-4."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in RUN (CONFIG can then be left out).")
    ] = False,
    init_from: Annotated[
        Path | None, typer.Option("--init-from", metavar="MODEL", help=f"Start from the weights of a model. {MODEL}")
    ] = None,
    device: Annotated[Device, typer.Option("--device", help="Where to train.")] = Device.AUTO,
    download: Annotated[bool, typer.Option("--download", help="Download the data if they are missing.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and the cost of a step; write nothing.")
    ] = False,
) -> None:
    """Train a spiking diffusion model. Several processes: torchrun --nproc-per-node N --no-python sddpm train ..."""
    if config is None and not (resume and out is not None):
        raise UserError("CONFIG is missing: give a YAML file or a name, or --resume with --out RUN")
    run_dir = out or Path("runs") / Path(str(config)).stem
    if config is None and not (run_dir / "config.yaml").is_file():
        raise UserError(f"no run to resume in {run_dir}: give the folder of a run, or a CONFIG to begin one")
    from sddpm.training import load_config

    settings = list(overrides or [])
    if data is not None:
        settings.append(f"data.path={json.dumps(data)}")
    if download:
        settings.append("data.download=true")
    loaded = load_config(config if config is not None else run_dir / "config.yaml", settings)
    if dry_run:
        from sddpm.training.plan import describe_run

        print(describe_run(loaded, device=device.value, init_from=init_from))
        return
    from sddpm.training import train as train_model

    finish(train_model(loaded, run_dir, resume=resume, init_from=init_from, device=device.value))


def finish(result: "TrainResult") -> None:
    """Print how the training ended; if a signal stopped it, exit like a process ended by that signal."""
    from sddpm.training.processes import is_first_process

    run_dir = result.run_dir
    first = is_first_process()  # only one of several processes prints
    if result.stopped_by != "steps":
        if first:
            say(
                sys.stderr,
                f"stopped by {result.stopped_by} after step {result.step}; --resume continues the run in {run_dir}",
            )
        raise typer.Exit(128 + signal.Signals[result.stopped_by])
    if first:
        done = f"trained {result.step} steps" if result.began < result.step else f"finished before: {result.step} steps"
        say(sys.stdout, f"{done}; the model is in {run_dir / 'model'}")


def say(stream: TextIO, line: str) -> None:
    """Write a line, ignoring errors: training must not fail because its terminal was closed."""
    from sddpm.training.progress import LastingStream

    lasting = LastingStream(stream)
    lasting.write(f"{line}\n")
    lasting.flush()
