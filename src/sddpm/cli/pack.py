"""`sddpm pack` and `sddpm unpack`: a training run in files that can be carried to another machine."""

from pathlib import Path
from typing import Annotated

import typer

from sddpm.cli.app import app


@app.command()
def pack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the parts.")],
    max_part: Annotated[
        str | None,
        typer.Option("--max-part", metavar="SIZE", help="Largest size of a part, e.g. 60MB. (default: one part)"),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="A quarter of the size: float16 weights, and no optimiser moments.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Pack the newest checkpoint of a run, and what else it takes to go on, into a few files.

    Without --half the run goes on elsewhere as if it had not been moved. With it, weights are rounded and the learning
    rate warms up again.
    """
    from sddpm.moving import pack_run, parse_size

    packed = pack_run(run, out, max_part=parse_size(max_part) if max_part else None, half=half, force=force)
    count = len(packed.sizes)
    typer.echo(
        f"packed step {packed.step}{' in half precision' if half else ''}: {count} part{'s' * (count > 1)}, "
        f"{sum(packed.sizes) / 1e6:.1f} MB, in {out}"
    )


@app.command()
def unpack(
    source: Annotated[Path, typer.Argument(metavar="PACK", help="Folder with all parts and manifest.json.")],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder for the run, or that of the same run.")],
) -> None:
    """Make a run of its parts again; `sddpm train --resume --out RUN` goes on with it."""
    from sddpm.moving import unpack_run

    packed = unpack_run(source, run)
    rest = "; its learning rate will warm up again" if packed.half else ""
    typer.echo(f"unpacked step {packed.step} to {run}{rest}; `sddpm train --resume --out {run}` goes on")
