"""`sddpm guide`: searches for firing thresholds or an x0_scale with which a model samples better, validates them and
saves them with the model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sddpm.choices import check_choice
from sddpm.cli.app import app
from sddpm.cli.guide_sampler import DEFAULT_NAME, clear_sampler, search_sampler
from sddpm.cli.options import CHANGED, Sampling, refuse_options, with_sampling_options
from sddpm.errors import UserError

if TYPE_CHECKING:
    from sddpm.guidance import GuidanceReport


OF_SAMPLERS = frozenset({"evaluations", "proxy_seeds", "proxy_budget", "keep_as"})
OF_OTHERS = frozenset({"method", "range_", "groups", "boundary", "proxy_images", "held_out", "figure"})
OF_CLEARING = frozenset({"model", "clear", "search", "keep_as", "force", "quiet", "verbose"})


@app.command()
@with_sampling_options("v_threshold", "x0_scale", "guidance_scale", "exit_tolerance", batch_size=50)
def guide(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=CHANGED)],
    metric: Annotated[
        str | None,
        typer.Option(
            help="The metric that decides: {guiding_metrics}. (default: fid; for samplers kad with FAD's weights, else"
            " kid)"
        ),
    ] = None,
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
    split: Annotated[str | None, typer.Option(help="Split of the reference: train or test. (default: train)")] = None,
    preprocessing: Annotated[str, typer.Option(help="pytorch-fid or clean-fid.", metavar="NAME")] = "pytorch-fid",
    dim: Annotated[int, typer.Option(help="Inception features: 64, 192, 768 or 2048.")] = 2048,
    inception: Annotated[
        Path | None, typer.Option(help="Inception weights. (default: downloaded once)", metavar="PATH")
    ] = None,
    fad_weights: Annotated[Path | None, typer.Option(help="FSVAE's autoencoder, for fad.", metavar="PATH")] = None,
    fad_statistics: Annotated[
        Path | None, typer.Option(help="Published statistics for fad. (default: of the reference)", metavar="NPZ")
    ] = None,
    limit_reference: Annotated[int | None, typer.Option(help="Use only the first so many reference images.")] = None,
    samples: Annotated[int, typer.Option(help="Number of samples in one seed set.")] = 2000,
    seed_sets: Annotated[int, typer.Option(help="Number of seed sets for the search; the same for every choice.")] = 2,
    validation_sets: Annotated[int, typer.Option(help="Number of fresh seed sets for the verdict.")] = 2,
    seed: Annotated[int, typer.Option(help="First seed of the search; fresh seeds start 2^31 later.")] = 0,
    *,
    sampling: Sampling,
    search: Annotated[
        str,
        typer.Option(
            help="What to search: thresholds (scalar, layers, time or layers-time), x0-scale, scalar-x0-scale, or"
            " sampler: solver, steps, time steps and x0_scale."
        ),
    ] = "scalar",
    evaluations: Annotated[int, typer.Option(help="For samplers: maximum number of evaluations per picture.")] = 10,
    proxy_seeds: Annotated[
        int, typer.Option(help="For samplers: number of pictures compared with a long solver's.")
    ] = 64,
    proxy_budget: Annotated[int, typer.Option(help="For samplers: maximum number of such comparisons.")] = 120,
    keep_as: Annotated[
        str, typer.Option(help="For samplers: the name under which the choice is saved.", metavar="NAME")
    ] = DEFAULT_NAME,
    method: Annotated[
        str | None,
        typer.Option(help="grid (only for one free number, where it is the default) or coordinate.", metavar="NAME"),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            help="Thresholds in multiples of the trained one, or scales, separated by commas; paper is 0.997 to 1.003,"
            " wide 0.9 to 1.1, scales 0.995 to 1.07. (default: paper,wide or scales)",
            metavar="LIST",
        ),
    ] = None,
    refine: Annotated[int, typer.Option(help="How often the grid is refined around its best point.")] = 2,
    range_: Annotated[
        str, typer.Option("--range", help="Smallest and largest value for coordinate.", metavar="LOW,HIGH")
    ] = "0.9,1.1",
    budget: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of choices, including the trained model. (default: as many as the grid needs)"
        ),
    ] = None,
    groups: Annotated[
        str, typer.Option(help="Groups of layers: encoder, middle, decoder, or name patterns.", metavar="NAMES")
    ] = "encoder,middle,decoder",
    boundary: Annotated[
        int | None,
        typer.Option(help="Diffusion step from which the denoising counts as early. (default: half)", metavar="T"),
    ] = None,
    resamples: Annotated[int, typer.Option(help="Number of bootstrap resamples.")] = 300,
    proxy_images: Annotated[
        int, typer.Option(help="Number of images for the noise-prediction loss over thresholds; 0: skip it.")
    ] = 256,
    held_out: Annotated[
        str | None, typer.Option(help="Source of these images. (default: the reference's test split)", metavar="WHAT")
    ] = None,
    store: Annotated[
        bool | None,
        typer.Option(
            "--store/--no-store",
            help="Save the choice with the model, whatever the verdict, or never. (default: if it is significantly"
            " better than the trained model)",
        ),
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Only remove the saved result of such a search from the model.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write all results to this file.", metavar="FILE.json")] = None,
    figure: Annotated[Path | None, typer.Option(help="Plot the curve to this file.", metavar="FILE.png")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.", metavar="NAME")] = "auto",
    download: Annotated[bool, typer.Option("--download", help="Download the data set if it is missing.")] = False,
    work: Annotated[
        Path | None,
        typer.Option(
            help="Folder for samples and features, so that a stopped search can continue. (default: in the cache)"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing outputs.")] = False,
) -> None:
    """Find firing thresholds (threshold guidance), an x0_scale or a sampler with which a model samples better.

    Every choice is sampled with the same seeds; the best is validated on fresh ones. sample and evaluate use the choice
    saved with the model unless --v-threshold or --x0-scale is given.
    """
    from sddpm.files import FIGURES, Output, check_outputs

    if clear:
        refuse_options(ctx, ctx.params.keys() - OF_CLEARING, "is only for a search: leave it out with --clear")
    refuse_foreign_options(ctx, search, method)
    if clear:
        clear_sampler(model, keep_as) if search == "sampler" else _clear(model, search)
        return
    if metric is None:
        metric = "fid" if search != "sampler" else "kid" if fad_weights is None else "kad"
    outputs = [Output(out, "--out")] if out is not None else []
    outputs += [Output(figure, "--figure", FIGURES)] if figure is not None else []
    inputs = (model, reference, data, inception, fad_weights, fad_statistics, held_out)
    check_outputs(outputs, inputs=filter(None, inputs), force=force)
    if store is not False:
        from sddpm.pipelines.resolving import own_folder

        own_folder(model)  # for its checks, before the long work
    low, high = _range(range_)
    chosen_grid = None if grid is None else parse_grid(grid)
    from sddpm.evaluation import EvaluationSettings, SamplingSettings
    from sddpm.guidance import GuidanceSettings
    from sddpm.guidance import guide as run_guide
    from sddpm.guidance.sampler_settings import SCALES, SamplerSettings

    evaluation = EvaluationSettings(
        source=str(model),
        reference=reference,
        data=data,
        metrics=(metric.strip(),),
        samples=samples,
        split=split,
        preprocessing=preprocessing,
        dim=dim,
        limit_reference=limit_reference,
        sampling=SamplingSettings(**sampling, first_seed=seed),
        inception=inception,
        fad_weights=fad_weights,
        fad_statistics=fad_statistics,
        device=device,
        download=download,
        work=work,
    )
    if search == "sampler":
        settings = SamplerSettings(
            evaluation=evaluation,
            evaluations=evaluations,
            seed_sets=seed_sets,
            validation_sets=validation_sets,
            grid=SCALES if chosen_grid is None else chosen_grid,
            refinements=refine,
            budget=budget,
            proxy_seeds=proxy_seeds,
            proxy_budget=proxy_budget,
            resamples=resamples,
        )
        search_sampler(ctx, settings, model, keep_as, store, out)
        return
    report = run_guide(
        GuidanceSettings(
            evaluation=evaluation,
            seed_sets=seed_sets,
            validation_sets=validation_sets,
            search=search,
            method=method,
            grid=chosen_grid,
            refinements=refine,
            low=low,
            high=high,
            budget=budget,
            groups=tuple(name.strip() for name in groups.split(",") if name.strip()),
            boundary=boundary,
            resamples=resamples,
            proxy_images=proxy_images,
            held_out=held_out,
        ),
        say=lambda line: typer.echo(line, err=True),
    )
    if report is not None:
        keep = report.beats_trained if store is None else store
        _show(ctx, report, model, search, keep, store, out, figure)


def refuse_foreign_options(ctx: typer.Context, search: str, method: str | None) -> None:
    """Raise `UserError` for an option that this kind of search does not use, or for an unknown search."""
    from sddpm.guidance.settings import default_method
    from sddpm.guidance.space import SEARCHES

    check_choice("search", search, [*SEARCHES, "sampler"])
    if search == "sampler":
        refuse_options(ctx, OF_OTHERS, "is only for the other searches: leave it out")
        return
    refuse_options(ctx, OF_SAMPLERS, "is only for --search sampler: leave it out")
    if "layers" not in search:
        refuse_options(ctx, ("groups",), "is only for --search layers or layers-time: leave it out")
    if "time" not in search:
        refuse_options(ctx, ("boundary",), "is only for --search time or layers-time: leave it out")
    if (method or default_method(search)) == "grid":
        refuse_options(ctx, ("range_",), "is only for --method coordinate: leave it out")
    else:
        refuse_options(ctx, ("grid", "refine"), "is only for --method grid: leave it out")


def parse_grid(text: str) -> tuple[float, ...]:
    """Multiples from "paper,wide,0.85". Raises `UserError` for a part that is neither a number nor the name of a
    grid."""
    from sddpm.guidance.settings import GRIDS

    found: set[float] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found |= set(GRIDS[part]) if part in GRIDS else {float(part)}
        except ValueError as error:
            raise UserError(f"--grid: {part!r} is neither a number nor {' nor '.join(GRIDS)}") from error
    if not found:
        raise UserError("--grid needs at least one number")
    return tuple(sorted(found))


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--range {text!r}: two numbers such as 0.9,1.1 are needed") from error
    return low, high


def _clear(model: Path, search: str) -> None:
    from sddpm.guidance import store_guidance, store_x0_scale

    if search == "x0-scale":
        store_x0_scale(model, 1.0)
        typer.echo(f"{model}: now samples without an x0_scale")
    else:
        scaled = search.endswith("x0-scale")
        store_guidance(model, None, 1.0 if scaled else None)
        without = " and without an x0_scale" if scaled else ""
        typer.echo(f"{model}: now samples with the trained thresholds{without}")


def _show(
    ctx: typer.Context,
    report: "GuidanceReport",
    model: Path,
    search: str,
    keep: bool,
    asked: bool | None,
    out: Path | None,
    figure: Path | None,
) -> None:
    """Save the choice, print table and verdict, write the JSON and the figure."""
    import shlex
    import sys

    from sddpm.cli.arguments import in_options
    from sddpm.files import atomic_path
    from sddpm.guidance import store_guidance, store_x0_scale
    from sddpm.guidance.record import as_json, kept_with_model
    from sddpm.guidance.report import draw, table, verdict

    if out is not None:
        with atomic_path(out) as temporary:
            temporary.write_text(as_json(report, shlex.join(["sddpm", *sys.argv[1:]]), keep), encoding="utf-8")
    if figure is not None:
        with atomic_path(figure) as temporary:
            draw(report).savefig(temporary)
    typer.echo(table(report))
    for line in verdict(report):
        typer.echo(in_options(ctx, line))
    if keep:
        space, scale = report.space, report.space.x0_scale(report.chosen)
        if space.groups:
            store_guidance(model, kept_with_model(report), scale)
        elif scale is not None:
            store_x0_scale(model, scale)
        undone = ["--v-threshold trained"] if space.groups else []
        undone += ["--x0-scale 1"] if space.scaled else []
        clear = f"guide --clear{f' --search {search}' if space.scaled else ''}"
        use = "sample and evaluate use it"
        if space.scaled and (default := report.facts["default_with_own_scale"]) is not None:
            use += f", the scale only with --solver or --sampler own, since the default sampler {default} has its own"
        typer.echo(f"saved with {model}: {use}; {' '.join(undone)}, or {clear}, undoes it")
    else:
        typer.echo(f"{model} was not changed" + ("" if asked is False else "; --store saves the choice nevertheless"))
