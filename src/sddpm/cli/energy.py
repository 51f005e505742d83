"""`sddpm energy`: estimates the energy of a model's operations and spikes."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sddpm.cli.app import app
from sddpm.cli.options import MODEL, Sampling, refuse_options, with_sampling_options
from sddpm.cli.sample import parse_seeds
from sddpm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from sddpm.energy.account import Account
    from sddpm.pipelines import SpikingDiffusionPipeline


WITHOUT_MODEL = frozenset({"published", "force", "quiet", "verbose"})  # options that need no model


@app.command()
@with_sampling_options("engine", batch_size=8)
def energy(
    ctx: typer.Context,
    model: Annotated[Path | None, typer.Argument(metavar="MODEL", help=MODEL)] = None,
    count: Annotated[int | None, typer.Option(help="Number of samples, with seeds 0, 1, ... (default: 8)")] = None,
    seeds: Annotated[str | None, typer.Option(help="One seed per sample, such as 0-7.", metavar="RANGES")] = None,
    images: Annotated[
        str | None,
        typer.Option(
            help="Measure on these images with noise instead: a data set, folder, zip or image.", metavar="WHAT"
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Location of a data set given by name.", metavar="FOLDER|ZIP")
    ] = None,
    split: Annotated[str, typer.Option(help="train or test, for a data set given by name.")] = "train",
    resize: Annotated[
        str | None,
        typer.Option(help="Resize images of another size to the model's, with this filter.", metavar="FILTER"),
    ] = None,
    *,
    sampling: Sampling,
    time_table: Annotated[
        bool | None,
        typer.Option(
            "--time-table/--time-layers",
            help="Count the time embedding as a table of biases or as layers. (default: table for pure networks)",
        ),
    ] = None,
    cost: Annotated[
        list[str] | None,
        typer.Option(
            help="Cost model by name, or a YAML file; can be repeated. (default: all known by name)",
            metavar="NAME|YAML",
        ),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also print every layer.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write a report with pictures to one file.", metavar="FILE.html")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all results.", metavar="FILE.json")] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", help="Write a row for each diffusion step, layer and SNN time step.", metavar="FILE.csv"),
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Print the published energies of SDDPM, and with multiplications charged where inputs are real.",
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.", metavar="NAME")] = "auto",
    download: Annotated[bool, typer.Option("--download", help="Download the data set if it is missing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing outputs.")] = False,
) -> None:
    """Estimate the energy of a model: count operations spike by spike, and apply several cost models.

    Samples images (or uses given images with noise), and compares with an ANN of the same size and with the published
    formula.
    """
    if model is None:
        if not published:
            raise UserError("MODEL is missing: give a saved model or the folder of a run, or --published")
        refuse_options(ctx, ctx.params.keys() - WITHOUT_MODEL, "needs MODEL: --published alone measures nothing")
        print_published()
        return
    from sddpm.energy.cost import cost_model_names, load_cost_model
    from sddpm.files import Output, check_outputs

    named = {"--report": report, "--json": json_file, "--csv": csv_file}
    check_outputs(
        [Output(path, option) for option, path in named.items() if path is not None],
        inputs=filter(None, (model, images, data, *(cost or ()))),
        force=force,
    )
    if images is None:
        refuse_options(ctx, ("data", "split", "resize", "download"), "is only for --images WHAT: leave it out")
    else:
        refuse_options(ctx, ("seeds",), "is only for samples: with --images use --count")
        refuse_options(ctx, ("guidance_scale", "eta", "x0_scale"), "is only for samples: leave it out with --images")
    chosen = parse_seeds(seeds, 8 if count is None and seeds is None else count)
    costs = [load_cost_model(name) for name in cost or cost_model_names()]
    if repeated := [name for name, times in Counter(each.name for each in costs).items() if times > 1]:
        raise UserError(f"--cost: two cost models are named {repeated[0]!r}: give each a name of its own")

    from sddpm.energy.account import Account
    from sddpm.energy.activity import recording
    from sddpm.energy.measure import deployed, measure_images, measure_sampling
    from sddpm.energy.report import as_text
    from sddpm.energy.twin import twin_ledger
    from sddpm.pipelines import SamplingOptions, load_pipeline
    from sddpm.pipelines.class_guidance import drawn_by_seed
    from sddpm.pipelines.devices import pick_device

    pipeline = deployed(load_pipeline(model, pick_device(device)), time_table)
    options = SamplingOptions(**sampling)
    if images is not None:
        pipeline.require_images()
    pictures = None if images is None else open_images(pipeline, images, data, split, resize, len(chosen), download)
    with recording(pipeline.unet) as activity:
        if pictures is None:
            labels = drawn_by_seed(pipeline.num_classes)
            ledger = measure_sampling(
                pipeline, chosen, class_labels=labels, options=options, progress=True, title=str(model)
            )
        else:
            ledger = measure_images(pipeline, pictures, options=options, title=str(model))
    account = Account(
        ledger,
        costs,
        twin_ledger(pipeline) if ledger.spiking and pipeline.signal_range is None else None,
        activity if ledger.spiking else None,
    )
    typer.echo(as_text(account, layers))
    write(account, report, json_file, csv_file)
    if published:
        typer.echo()
        print_published()


def open_images(
    pipeline: "SpikingDiffusionPipeline",
    images: str,
    data: str | None,
    split: str,
    resize: str | None,
    count: int,
    download: bool,
) -> "Tensor":
    """The images, uint8 [N, C, H, W], in the model's training size.

    A data set given by name is prepared as for training; other images are only resized if `resize` is given.
    """
    from sddpm.data import open_dataset
    from sddpm.data.registry import find_dataset

    config = pipeline.unet.config
    entry = find_dataset(images)
    known = entry is not None and entry.name != "folder"
    size = config.sample_size if known or resize is not None else None
    dataset = open_dataset(
        images, data, split, size, config.in_channels, resize or "bilinear", download=download, limit=count
    )
    return dataset.gather(range(len(dataset)))


def write(account: "Account", report: Path | None, json_file: Path | None, csv_file: Path | None) -> None:
    """Write the requested files, each atomically."""
    import shlex
    import sys

    from sddpm.energy.export import as_csv, as_json
    from sddpm.files import atomic_path

    command = shlex.join(["sddpm", *sys.argv[1:]])
    texts: list[tuple[Path, str]] = []
    if report is not None:
        from sddpm.energy.html import as_html

        texts.append((report, as_html(account, command)))
    if json_file is not None:
        texts.append((json_file, as_json(account, command)))
    if csv_file is not None:
        texts.append((csv_file, as_csv(account)))
    for path, text in texts:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def print_published() -> None:
    """Print the published energies, and those with multiplications charged where inputs are real."""
    from sddpm.energy.published import published_ann, published_snn
    from sddpm.energy.report import published_text

    typer.echo(published_text([published_ann(), published_snn(4), published_snn(8)]))
