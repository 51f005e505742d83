"""`sddpm export`: a model in the formats of others."""

from pathlib import Path
from typing import Annotated

import typer

from sddpm.cli.app import app
from sddpm.errors import UserError


@app.command()
def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model, or the folder of a training run.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="FILE.onnx.")],
    rates: Annotated[bool, typer.Option("--rates", help="Firing rates as a second output.")] = False,
    half: Annotated[bool, typer.Option("--half", help="Round weights to float16.")] = False,
    v_threshold: Annotated[
        list[str] | None,
        typer.Option(
            help="Firing thresholds to put in, as of sddpm sample. (default: those that the model samples with)",
            metavar="V",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Write a model as an ONNX file: the network, all T time steps of it, and what it takes to sample from it.

    `sddpm sample FILE.onnx` draws with it by onnxruntime; examples/onnx_sample.py does so without this package.
    """
    from sddpm.cli.options import parse_thresholds
    from sddpm.files import Output, check_outputs

    if out.suffix.lower() != ".onnx":
        raise UserError(f"{out}: FILE.onnx is needed")
    check_outputs([Output(out)], inputs=[model], force=force)
    chosen = parse_thresholds(v_threshold)
    try:
        from sddpm.export.onnx_file import export_onnx
    except ImportError as error:
        raise UserError(f"sddpm export needs the extra onnx: pip install 'sddpm[onnx]' ({error})") from error
    from sddpm.pipelines import load_pipeline

    graph = export_onnx(load_pipeline(model), out, thresholds=chosen, rates=rates, half=half).graph
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(graph.node):,} operators")
