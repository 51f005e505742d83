"""`sddpm interpolate`: interpolates from the picture of one seed to that of another."""

from pathlib import Path
from typing import Annotated

import typer

from sddpm.cli.app import app
from sddpm.cli.numbers import MOST_SAMPLES, MOST_SCALE, check_grid, check_range
from sddpm.cli.options import MODEL, Classes, Sampling, with_sampling_options
from sddpm.cli.sample import parse_seeds


@app.command()
@with_sampling_options("eta", "exit_tolerance", solver="ddim")
def interpolate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL)],
    seeds: Annotated[str, typer.Option(help="Sequence of seeds, such as 3,8,5 or 0-4.", metavar="RANGES")] = "0-4",
    frames: Annotated[int, typer.Option(help="Images from one seed to the next, including both.")] = 9,
    classes: Classes = None,
    *,
    sampling: Sampling,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.", metavar="NAME")] = "auto",
    out: Annotated[Path, typer.Option(help="The picture to write.", metavar="FILE.png")] = Path("interpolation.png"),
    scale: Annotated[int | None, typer.Option(help="Factor by which pixels are enlarged.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing outputs.")] = False,
) -> None:
    """Draw a row of images from each seed to the next, by spherical interpolation of their initial noise.

    The ends of a row are the images that sddpm sample draws from these seeds with the same solver, steps and class.
    Each row has one class; with several classes every row is drawn in each. A random class is drawn from the row's
    first seed.
    """
    from sddpm.files import PICTURE, Output, atomic_path, check_outputs

    chosen = parse_seeds(seeds, None)
    check_outputs([Output(out, "--out", PICTURE)], inputs=[model], force=force)
    check_range("--scale", scale, 1, MOST_SCALE)
    check_range("--frames", frames, 1, MOST_SAMPLES)

    import torch

    from sddpm.data import unit_to_uint8
    from sddpm.figures.grid import class_rows, image_grid
    from sddpm.pipelines import SamplingOptions, load_pipeline
    from sddpm.pipelines.devices import pick_device
    from sddpm.pipelines.wanted import wanted_images

    pipeline = load_pipeline(model, pick_device(device))
    options = pipeline.resolve_options(SamplingOptions(**sampling))
    wanted, pairs = wanted_images(pipeline, chosen[:-1], classes or []), len(chosen) - 1

    check_grid(frames * len(wanted.seeds), pipeline.unet.config.sample_size, scale)

    def rows_of(labels: list[int] | None) -> torch.Tensor:
        """The images, uint8 [pairs x frames, C, H, W], with one class for each pair."""
        images = pipeline.interpolate(
            chosen,
            frames,
            class_labels=labels,
            options=options,
            output_type="pt",
        ).images
        return unit_to_uint8(torch.as_tensor(images))

    with atomic_path(out) as temporary:
        if wanted.rows is None or wanted.labels is None:
            image_grid(rows_of(wanted.labels), frames, scale).save(temporary, "PNG")
        else:
            names = [name for name in wanted.rows for _ in range(pairs)]
            starts = range(0, len(wanted.labels), pairs)
            images = torch.cat([rows_of(wanted.labels[start : start + pairs]) for start in starts])
            class_rows(images, names, scale).save(temporary, "PNG")
    count = pairs * len(wanted.rows or [None])
    typer.echo(f"{out}: {count} rows of {frames} images, {pipeline.sampler(options)}")
