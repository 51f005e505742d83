"""`sddpm export`: writes a model in other formats."""

from pathlib import Path
from typing import Annotated

import typer

from sddpm.cli.app import app
from sddpm.cli.options import MODEL, parse_thresholds
from sddpm.errors import UserError


@app.command()
def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="FILE.onnx, FILE.nir, or with --web a folder.")],
    web: Annotated[
        bool, typer.Option("--web", help="Write a page that samples in the browser, without Python.")
    ] = False,
    rates: Annotated[bool, typer.Option("--rates", help="ONNX: firing rates as a second output.")] = False,
    half: Annotated[bool, typer.Option("--half", help="ONNX: round weights to float16. (--web always does)")] = False,
    v_threshold: Annotated[
        list[str] | None,
        typer.Option(
            help="Firing thresholds, as in sddpm sample. (default: those that the model samples with)",
            metavar="V",
        ),
    ] = None,
    timestep: Annotated[
        int | None, typer.Option(help="NIR: the single diffusion step of the graph. (default: all)", metavar="T")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Write a model as ONNX, as NIR, or as a page that samples in the browser.

    FILE.onnx contains the network with all T time steps and everything needed to sample: `sddpm sample FILE.onnx`, or
    examples/onnx_sample.py without this package. --web writes a folder for a web server, for example `python -m
    http.server`; it downloads onnxruntime-web once with npm. FILE.nir is for tools for neuromorphic hardware;
    docs/how-to/export.md lists the networks that NIR supports.
    """
    from sddpm.files import Output, check_outputs

    kind = "web" if web else out.suffix.lower().lstrip(".")
    if kind not in ("web", "onnx", "nir"):
        raise UserError(f"{out}: give FILE.onnx or FILE.nir, or --web for a folder")
    if kind != "onnx" and (rates or half):
        raise UserError("--rates and --half need FILE.onnx")
    if kind != "nir" and timestep is not None:
        raise UserError("--timestep needs FILE.nir")
    check_outputs([Output(out, folder=("page",) if web else None)], inputs=[model], force=force)
    chosen = parse_thresholds(v_threshold)
    from sddpm.pipelines import load_pipeline

    pipeline = load_pipeline(model)
    extra = "nir" if kind == "nir" else "onnx"
    typer.echo(f"writing {out}, which may take a minute", err=True)
    try:
        if kind == "onnx":
            from sddpm.export.onnx_file import export_onnx

            graph = export_onnx(pipeline, out, thresholds=chosen, rates=rates, half=half).graph
            typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(graph.node):,} operators")
        elif kind == "nir":
            from sddpm.export.nir_file import export_nir

            nodes = export_nir(pipeline, out, thresholds=chosen, timestep=timestep).nodes
            typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(nodes)} nodes")
        else:
            from sddpm.export.web import export_web

            export_web(pipeline, out, thresholds=chosen, name=model.name)
            size = sum(file.stat().st_size for file in out.iterdir())
            typer.echo(f"{out}: {size / 1e6:.1f} MB; to open it: python -m http.server --directory {out}")
    except ImportError as error:
        raise UserError(
            f"this export needs the extra {extra}: pip install '.[{extra}]' in the folder of the project ({error})"
        ) from error
