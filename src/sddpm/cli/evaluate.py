"""`sddpm evaluate`: measures the quality of samples with the usual metrics."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sddpm.cli.app import app
from sddpm.cli.options import MODEL, Sampling, with_sampling_options

if TYPE_CHECKING:
    from sddpm.evaluation import Evaluation


@app.command()
@with_sampling_options(batch_size=50)
def evaluate(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help=f"{MODEL} Or a folder, zip or .npz of images, or a data set such as mnist:test.",
        ),
    ],
    reference: Annotated[
        str | None,
        typer.Option(
            help="Data set, folder, zip or .npz of images, or statistics .npz. (default: a run's training data)",
            metavar="WHAT",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Location of a data set given by name.", metavar="FOLDER|ZIP")
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="sddpm (50,000, training split, pytorch-fid) or fsddim (10,000, test split, clean-fid).")
    ] = "sddpm",
    metric: Annotated[
        str | None,
        typer.Option(help="{metrics}; several separated by commas. (default: the protocol's)", metavar="NAMES"),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Number of samples. (default: the protocol's)")] = None,
    split: Annotated[str | None, typer.Option(help="train or test. (default: the protocol's)")] = None,
    preprocessing: Annotated[
        str | None, typer.Option(help="pytorch-fid or clean-fid. (default: the protocol's)", metavar="NAME")
    ] = None,
    dim: Annotated[int | None, typer.Option(help="Inception features: 64, 192, 768 or 2048 (default).")] = None,
    class_label: Annotated[
        str | None,
        typer.Option(
            "--class",
            help="Sample only this class, or none. (default: random, drawn from each seed, if the model has classes)",
            metavar="CLASS",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first sample; the others count up from it.")] = 0,
    *,
    sampling: Sampling,
    inception: Annotated[
        Path | None, typer.Option(help="Inception weights. (default: downloaded once)", metavar="PATH")
    ] = None,
    fad_weights: Annotated[Path | None, typer.Option(help="FSVAE's autoencoder, for fad.", metavar="PATH")] = None,
    fad_statistics: Annotated[
        Path | None, typer.Option(help="Published statistics for fad. (default: of the reference)", metavar="NPZ")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Resize images from files to this size.")] = None,
    channels: Annotated[
        int | None, typer.Option(help="Convert images from files to 1 (grey) or 3 (colour) channels.")
    ] = None,
    crop: Annotated[str | None, typer.Option(help="center, center148 or ddim64, before resizing.")] = None,
    resize: Annotated[
        str | None, typer.Option(help="Filter for resizing. (default: as for a run's training images, else bilinear)")
    ] = None,
    limit_reference: Annotated[int | None, typer.Option(help="Use only the first so many reference images.")] = None,
    kid_subsets: Annotated[int, typer.Option(help="Number of subsets for kid.")] = 100,
    kid_subset_size: Annotated[int, typer.Option(help="Samples and reference images in each subset.")] = 1000,
    splits: Annotated[int, typer.Option(help="Splits of the Inception score.")] = 10,
    interval: Annotated[
        bool, typer.Option("--interval", help="A 95 % interval for every metric, by the jackknife over 20 groups.")
    ] = False,
    copies: Annotated[bool, typer.Option(help="Search for near copies of training images.")] = True,
    training: Annotated[
        str | None,
        typer.Option(
            help="Where to search for copies. (default: a run's training data, else the reference's training split)",
            metavar="WHAT",
        ),
    ] = None,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Compare even if samples are images of the reference.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write all results to this file.", metavar="FILE.json")] = None,
    grid: Annotated[
        Path | None, typer.Option(help="Draw the first 64 samples to this file.", metavar="FILE.png")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.", metavar="NAME")] = "auto",
    download: Annotated[bool, typer.Option("--download", help="Download the data set if it is missing.")] = False,
    work: Annotated[
        Path | None,
        typer.Option(
            help="Folder for samples and features, so that a stopped evaluation can continue. (default: in the cache)"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing outputs.")] = False,
) -> None:
    """Measure the quality of samples, compared with real images or alone.

    If a number does not follow the protocol, the output says how it differs. Several processes: torchrun
    --nproc-per-node N --no-python sddpm evaluate ...
    """
    from sddpm.files import PICTURE, Output, check_outputs

    outputs = [Output(out, "--out")] if out is not None else []
    outputs += [Output(grid, "--grid", PICTURE)] if grid is not None else []
    check_outputs(
        outputs,
        inputs=filter(None, (source, reference, data, training, inception, fad_weights, fad_statistics)),
        force=force,
    )
    from sddpm.evaluation import EvaluationSettings, SamplingSettings, TrainingData
    from sddpm.evaluation import evaluate as run_evaluation

    evaluation = run_evaluation(
        EvaluationSettings(
            source=source,
            reference=reference,
            data=data,
            protocol=protocol,
            metrics=None if metric is None else tuple(name.strip() for name in metric.split(",")),
            samples=samples,
            split=split,
            preprocessing=preprocessing,
            dim=dim,
            image_size=image_size,
            channels=channels,
            crop=crop,
            resize=resize,
            limit_reference=limit_reference,
            sampling=SamplingSettings(**sampling, first_seed=seed, class_label=class_label),
            inception=inception,
            fad_weights=fad_weights,
            fad_statistics=fad_statistics,
            kid_subsets=kid_subsets,
            kid_subset_size=kid_subset_size,
            splits=splits,
            interval=interval,
            copies=copies,
            training=None if training is None else TrainingData(training, data),
            allow_overlap=allow_overlap,
            device=device,
            download=download,
            work=work,
        )
    )
    if evaluation is not None:
        show(ctx, evaluation, out, grid)


def show(ctx: typer.Context, evaluation: "Evaluation", out: Path | None, grid: Path | None) -> None:
    """Print one line per metric; write the JSON and the grid."""
    import shlex
    import sys

    from sddpm.cli.arguments import in_options
    from sddpm.evaluation.report import as_json, copies_line, line
    from sddpm.figures.grid import image_grid
    from sddpm.files import atomic_path

    for measurement in evaluation.measurements:
        typer.echo(line(measurement, evaluation.plan.protocol.name))
    if evaluation.facts["near_copies"] is not None:
        typer.echo(in_options(ctx, copies_line(evaluation.facts["near_copies"])))
    if grid is not None:
        with atomic_path(grid) as temporary:
            image_grid(evaluation.grid, scale=None).save(temporary, "PNG")
    if out is not None:
        with atomic_path(out) as temporary:
            temporary.write_text(as_json(evaluation, shlex.join(["sddpm", *sys.argv[1:]])) + "\n", encoding="utf-8")
