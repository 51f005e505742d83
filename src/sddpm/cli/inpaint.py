"""`sddpm inpaint`: repaints a part of images with a saved model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sddpm.cli.app import app
from sddpm.cli.numbers import MOST_SAMPLES, MOST_SCALE, check_grid, check_range
from sddpm.cli.options import MODEL, Classes, Sampling, refuse_options, with_sampling_options
from sddpm.cli.sample import output_format
from sddpm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

GREY = 128  # shown for the unknown part in the picture of the known part


@app.command()
@with_sampling_options("exit_tolerance", solver="ddim")
def inpaint(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL)],
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGES", help="An image, a folder, zip or .npz of images, or a data set such as mnist:test."
        ),
    ],
    mask: Annotated[
        str,
        typer.Option(
            help="Region to repaint: left, right, top, bottom, center, around, or an image that is white there.",
            metavar="REGION|FILE",
        ),
    ],
    data: Annotated[
        str | None, typer.Option(help="Location of a data set given by name.", metavar="FOLDER|ZIP")
    ] = None,
    count: Annotated[int, typer.Option(help="Number of images, from the first.")] = 8,
    draws: Annotated[int, typer.Option(help="Number of repaintings of each image.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the first repainting; the others count up from it.")] = 0,
    resamplings: Annotated[int, typer.Option(help="How often each segment of steps is run.")] = 10,
    jump_length: Annotated[int, typer.Option(help="Steps per segment: use more if there are more steps in total.")] = 2,
    classes: Classes = None,
    *,
    sampling: Sampling,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.", metavar="NAME")] = "auto",
    download: Annotated[bool, typer.Option("--download", help="Download the data set if it is missing.")] = False,
    out: Annotated[
        Path, typer.Option(help="FILE.png with the images; FOLDER, FILE.zip or FILE.npz without.", metavar="PATH")
    ] = Path("inpainted.png"),
    scale: Annotated[int | None, typer.Option(help="Factor by which pixels are enlarged in FILE.png.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing outputs.")] = False,
) -> None:
    """Repaint a part of images so that it fits the rest, which does not change (RePaint).

    Each repainting needs steps x resamplings evaluations of the network. FILE.png has one row per image: the image, its
    known part, and the repaintings. Files in folders and zips are named by their seed. Without --class, a model with
    classes samples no class; with several classes every image is repainted in each, with the same seeds.
    """
    from sddpm.data.registry import named_dataset
    from sddpm.files import Output, check_outputs

    kind = output_format(out, None)
    output = Output(out, "--out", folder=() if kind == "folder" else None)
    check_outputs([output], inputs=filter(None, (model, images, mask, data)), force=force)
    for option, value in {"--draws": draws, "--count": count, "--draws times --count": draws * count}.items():
        check_range(option, value, 1, MOST_SAMPLES)
    check_range("--scale", scale, 1, MOST_SCALE)
    if kind != "grid":
        refuse_options(ctx, ("scale",), "is only for FILE.png: leave it out")
    if is_image(images):
        refuse_options(ctx, ("count",), f"is only for several images: leave it out, {images} is one")
    if not named_dataset(images)[1]:
        refuse_options(ctx, ("data", "download"), "is only for a data set given by name: leave it out")

    import torch

    from sddpm.cli.sample_outputs import write_images
    from sddpm.data import unit_to_uint8
    from sddpm.figures.grid import image_grid
    from sddpm.files import atomic_path
    from sddpm.pipelines import SamplingOptions, load_pipeline
    from sddpm.pipelines.devices import pick_device
    from sddpm.pipelines.wanted import wanted_images

    pipeline = load_pipeline(model, pick_device(device))
    pipeline.require_images()
    channels, size = pipeline.unet.config.in_channels, pipeline.unet.config.sample_size
    if channels not in (1, 3) or not isinstance(size, int):
        raise UserError(
            f"{model} makes images of {channels} channels, {size} pixels: inpaint needs square grey or RGB images"
        )
    options = pipeline.resolve_options(SamplingOptions(**sampling))
    known = read_images(images, data, download, count, channels, size)
    where = read_mask(mask, size)
    wanted = wanted_images(pipeline, list(range(seed, seed + len(known) * draws)), classes or [], "none")
    kinds = len(wanted.rows or [None])
    if kind == "grid":
        check_grid(len(known) * (kinds * draws + 2), size, scale)

    def paint() -> "Tensor":
        painted = pipeline.inpaint(
            known.repeat_interleave(draws, 0).repeat(kinds, 1, 1, 1),
            where,
            seeds=wanted.seeds,
            jump_length=jump_length,
            resamplings=resamplings,
            class_labels=wanted.labels if classes else None,
            options=options,
            output_type="pt",
        )
        return torch.as_tensor(painted.images)

    if kind == "grid":
        with atomic_path(out) as temporary:
            painted = unit_to_uint8(paint()).unflatten(0, (kinds, len(known), draws)).transpose(0, 1).flatten(1, 2)
            seen = torch.where(where, GREY, known)
            rows = torch.cat([known[:, None], seen[:, None], painted], 1)
            image_grid(rows.flatten(0, 1), kinds * draws + 2, scale).save(temporary, "PNG")
    else:
        write_images(kind, out, ((wanted.seeds, paint()) for _ in range(1)), wanted=wanted)  # painted after its checks
    times = f"{kinds * draws} times"
    typer.echo(f"{out}: {len(known)} images, each repainted {times}, {pipeline.sampler(options)} x {resamplings}")


def is_image(images: str) -> bool:
    """Whether this is the path of one image."""
    from sddpm.opening.files import user_path

    path = user_path(images)
    return path.exists() and not path.is_dir() and path.suffix.lower() not in (".zip", ".npz")


def read_images(images: str, data: str | None, download: bool, count: int, channels: int, size: int) -> "Tensor":
    """The first `count` images, uint8 [N, C, H, W], in the size and colour of the model."""
    import torch

    from sddpm.data.pixels import PixelSpec, prepare
    from sddpm.data.registry import named_dataset
    from sddpm.evaluation.images import open_images
    from sddpm.opening.files import user_path
    from sddpm.opening.images import open_image

    path = user_path(images)
    if is_image(images):
        with open_image(path) as image:
            return torch.from_numpy(prepare(image, PixelSpec(channels, size)).copy())[None]
    name, named, split = named_dataset(images)
    dataset = open_images(
        name if named else str(path),
        data=data,
        split=split or "train",
        image_size=size,
        channels=channels,
        limit=count,
        download=download,
    )
    return dataset.gather(list(range(min(count, len(dataset)))))


def read_mask(mask: str, size: int) -> "Tensor":
    """The region to repaint, bool [H, W]: by name, or the white part of an image."""
    from sddpm.opening.images import open_image
    from sddpm.pipelines.inpainting import REGIONS, as_mask, region_mask

    if mask in REGIONS:
        return region_mask(mask, size, size)
    if not Path(mask).exists():
        raise UserError(f"--mask {mask}: neither one of {', '.join(REGIONS)} nor an image file")
    with open_image(mask) as image:
        return as_mask(image, (1, size, size))[0, 0]
