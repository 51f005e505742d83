"""`sddpm pack` and `sddpm unpack`: moves a training run to another machine."""

from pathlib import Path
from typing import Annotated

import typer

from sddpm.cli.app import app


@app.command()
def pack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a training run.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the parts.")],
    max_part: Annotated[
        str | None,
        typer.Option(
            "--max-part",
            metavar="SIZE",
            help="Largest size of a part, e.g. 60MB; 999 parts at most. (default: one part)",
        ),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="A quarter of the size: float16 weights, no optimiser state.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Pack the newest checkpoint of a run, and everything else needed to continue, into a few files.

    Without --half, the moved run continues as if it had not been moved. With it, weights are rounded and the learning
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
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder for the run, which can be its existing folder.")],
) -> None:
    """Make a run from its parts; `sddpm train --resume --out RUN` continues it."""
    from sddpm.moving import unpack_run

    packed = unpack_run(source, run)
    rest = "; its learning rate will warm up again" if packed.half else ""
    typer.echo(f"unpacked step {packed.step} to {run}{rest}; `sddpm train --resume --out {run}` continues it")
