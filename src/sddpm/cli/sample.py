"""`sddpm sample`: samples images from a saved model."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sddpm.choices import check_choice
from sddpm.cli.app import app
from sddpm.cli.numbers import MOST_SAMPLES, MOST_SCALE, check_grid, check_range
from sddpm.cli.options import MODEL_OR_ONNX, Classes, Sampling, refuse_options, with_sampling_options
from sddpm.errors import UserError
from sddpm.written import listed_seeds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from sddpm.pipelines import DenoisingStep

FORMATS = ("grid", "folder", "zip", "npz")


@app.command()
@with_sampling_options()
def sample(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL_OR_ONNX)],
    count: Annotated[int | None, typer.Option(help="Number of images, with the seeds 0, 1, ... (default: 16)")] = None,
    seeds: Annotated[str | None, typer.Option(help="One seed per image, such as 0-63,100.", metavar="RANGES")] = None,
    classes: Classes = None,
    *,
    sampling: Sampling,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.", metavar="NAME")] = "auto",
    out: Annotated[Path, typer.Option(help="FILE.png, FOLDER, FILE.zip or FILE.npz.", metavar="PATH")] = Path(
        "samples.png"
    ),
    format: Annotated[
        str | None, typer.Option(help="grid, folder, zip or npz. (default: from the name of --out)", metavar="NAME")
    ] = None,
    columns: Annotated[
        int | None,
        typer.Option(help="Images per row in a grid. (default: square; with several classes, one row per class)"),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            help="Factor by which pixels are enlarged in a grid or strip. (default: depends on the image size)"
        ),
    ] = None,
    strip: Annotated[
        Path | None, typer.Option(help="Draw the denoising of the first 4 samples to this file.", metavar="FILE.png")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing outputs.")] = False,
) -> None:
    """Sample images from a saved model.

    Each image has its own seed and does not depend on the batch size or the device, up to rounding.
    With several classes every seed is sampled in each.
    Images in folders and zips are named by their seed, and by class if there are several. .npz contains arr_0, uint8
    [N, H, W, C], and in arr_1 the classes, if the model has any. A model of signals writes FILE.npz, with arr_0 float32
    [N, C, L] in the units of its data, and a plot, FILE.png.
    """
    from contextlib import nullcontext
    from time import perf_counter

    from sddpm.files import PICTURE, Output, atomic_path, check_outputs

    chosen = parse_seeds(seeds, count)
    kind = output_format(out, format)
    outputs = [Output(out, "--out", PICTURE if kind == "grid" else (), folder=() if kind == "folder" else None)]
    outputs += [Output(strip, "--strip", PICTURE)] if strip is not None else []
    check_outputs(outputs, inputs=[model], force=force)
    check_range("--scale", scale, 1, MOST_SCALE)
    check_range("--columns", columns, 1, MOST_SAMPLES)
    if kind != "grid" and strip is None:
        refuse_options(ctx, ("scale",), "is only for a grid or strip: leave it out")

    from sddpm.cli.quick_start import import_diffusers

    import_diffusers()

    from sddpm.cli.models import open_model
    from sddpm.cli.sample_outputs import plot_beside, write_images, write_signals
    from sddpm.figures.grid import denoising_strip
    from sddpm.pipelines import SamplingOptions
    from sddpm.pipelines.recorder import DenoisingRecorder
    from sddpm.pipelines.wanted import wanted_images

    pipeline = open_model(model, device)
    channels = pipeline.unet.config.in_channels
    if pipeline.signal_range is None and channels not in (1, 3) and (kind != "npz" or strip is not None):
        raise UserError(f"images of {channels} channels can only be written as .npz")
    signals = pipeline.signal_range is not None
    if kind != "grid" and not signals:  # the signals of an .npz are also plotted
        refuse_options(ctx, ("columns",), "is only for a grid: leave it out")
    if signals:
        refuse_for_signals(kind, out, strip)
        outputs.append(Output(plot_beside(out), "the plot beside --out"))
        check_outputs(outputs, inputs=[model], force=force)
    wanted = wanted_images(pipeline, chosen, classes or [])
    if kind == "grid":
        check_grid(len(wanted.seeds), pipeline.unet.config.sample_size, scale)
    recorder = DenoisingRecorder()
    snn_steps: list[int] = []

    def after(step: "DenoisingStep") -> None:
        if strip is not None:
            recorder(step)
        if step.snn_steps is not None:
            snn_steps.extend(step.snn_steps.tolist())

    start = perf_counter()
    options = pipeline.resolve_options(SamplingOptions(**sampling))
    batches: Iterator[tuple[list[int], Tensor]] = pipeline.stream(
        wanted.seeds, class_labels=wanted.labels, options=options, callback=after
    )
    # Opened before the work starts, so that an unwritable folder is detected at once.
    with nullcontext() if strip is None else atomic_path(strip) as strip_file:
        if signals:
            write_signals(out, batches, columns, wanted)
        else:
            write_images(kind, out, batches, columns, scale, wanted)
        if strip_file is not None:
            denoising_strip(*recorder.frames(), scale=scale).save(strip_file, "PNG")
    seconds = perf_counter() - start
    taken = f"; {sum(snn_steps) / len(snn_steps):.3g} of {pipeline.unet.config.T} SNN time steps" if snn_steps else ""
    what = f"{len(wanted.seeds)} {'signals' if signals else 'images'}"
    typer.echo(
        f"{out}: {what}, {pipeline.sampler(options)} on {pipeline.device}, {seconds:.1f} s"
        f" ({len(wanted.seeds) / seconds:.3g} images/s){taken}" + (f"; {strip}" if strip is not None else "")
    )


def refuse_for_signals(kind: str, out: Path, strip: Path | None) -> None:
    """Raise `UserError` for files that only images can be written to."""
    if kind != "npz" or out.suffix.lower() != ".npz":
        raise UserError(
            f"--out {out}: this model samples signals, which need FILE.npz (a plot FILE.png is written too)"
        )
    if strip is not None:
        raise UserError("--strip needs a model of images; this model samples signals")


def parse_seeds(seeds: str | None, count: int | None) -> list[int]:
    """Seeds from "0-63,100", or the first `count` (default 16). No seed may be repeated, since images are named by it.

    Raises:
        UserError: both are given, or they are not different seeds.
    """
    if seeds is None:
        count = 16 if count is None else count
        check_range("--count", count, 1, MOST_SAMPLES)
        return list(range(count))
    if count is not None:
        raise UserError("give either --count or --seeds, not both")
    return listed_seeds(seeds, MOST_SAMPLES)


def output_format(out: Path, format: str | None) -> str:
    """The output format: as given, or from the suffix of the name; a name without a suffix is a folder.

    Raises:
        UserError: neither determines it.
    """
    if format is not None:
        check_choice("--format", format, FORMATS)
        return format
    if os.path.isdir(out):
        return "folder"
    by_suffix = {".png": "grid", "": "folder", ".zip": "zip", ".npz": "npz"}
    if out.suffix.lower() not in by_suffix:
        raise UserError(f"--out {out}: give FILE.png, FOLDER, FILE.zip or FILE.npz, or --format")
    return by_suffix[out.suffix.lower()]
