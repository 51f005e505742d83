"""`sddpm stats`: writes the statistics file of a data set, as a reference for evaluations."""

from pathlib import Path
from typing import Annotated

import typer

from sddpm.cli.app import app


@app.command()
def stats(
    images: Annotated[
        str, typer.Argument(metavar="DATA", help="A data set's name, or a folder, zip or .npz of images.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.npz", help="The file to write.")],
    data: Annotated[
        str | None, typer.Option(help="Location of a data set given by name.", metavar="FOLDER|ZIP")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train or test, for a data set given by name. (default: train)")
    ] = None,
    dim: Annotated[int, typer.Option(help="Inception features: 64, 192, 768 or 2048.")] = 2048,
    sfid: Annotated[bool, typer.Option("--sfid", help="Add mu_s and sigma_s of the spatial features.")] = False,
    preprocessing: Annotated[str, typer.Option(help="pytorch-fid or clean-fid.", metavar="NAME")] = "pytorch-fid",
    image_size: Annotated[
        int | None, typer.Option(help="Resize images to this size, that of the samples to compare.")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="1 grey, 3 colour. (default: as stored)")] = None,
    crop: Annotated[str | None, typer.Option(help="center, center148 or ddim64, before resizing.")] = None,
    resize: Annotated[str | None, typer.Option(help="Filter for resizing. (default: bilinear)")] = None,
    limit: Annotated[int | None, typer.Option(help="Use only the first so many images.")] = None,
    inception: Annotated[
        Path | None, typer.Option(help="Inception weights. (default: downloaded once)", metavar="PATH")
    ] = None,
    fad_weights: Annotated[
        Path | None, typer.Option(help="FSVAE's autoencoder: statistics for FAD instead.", metavar="PATH")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.", metavar="NAME")] = "auto",
    download: Annotated[bool, typer.Option("--download", help="Download the data set if it is missing.")] = False,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for features, so that a stopped run can continue. (default: in the cache)"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing outputs.")] = False,
) -> None:
    """Write mean and covariance of a data set's features (mu, sigma), in the format of pytorch-fid, EDM and SDDPM."""
    from sddpm.files import Output, check_outputs

    inputs = filter(None, (images, data, inception, fad_weights))
    check_outputs([Output(out, suffixes=(".npz",))], inputs=inputs, force=force)
    from sddpm.evaluation import StatisticsSettings, build_statistics

    statistics = build_statistics(
        StatisticsSettings(
            images=images,
            out=out,
            data=data,
            split=split,
            dim=dim,
            sfid=sfid,
            preprocessing=preprocessing,
            image_size=image_size,
            channels=channels,
            crop=crop,
            resize=resize,
            limit=limit,
            inception=inception,
            fad_weights=fad_weights,
            device=device,
            download=download,
            work=work,
        )
    )
    if statistics is not None:
        gaussian = statistics.gaussians["pool"]
        typer.echo(f"{out}: {gaussian.count:,} images, {gaussian.dim} features")
