"""`sddpm moments`: measures the moments of a model that Analytic-DPM needs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sddpm.cli.app import app
from sddpm.cli.options import CHANGED
from sddpm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from sddpm.diffusion.moments import Moments
    from sddpm.training.config import DataConfig


@app.command()
def moments(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=CHANGED)],
    config: Annotated[
        str | None,
        typer.Option(help="Config whose data section names the images. (default: that of the run)", metavar="CONFIG"),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Location of the data.", metavar="FOLDER|ZIP")] = None,
    samples: Annotated[int, typer.Option(help="Number of images, each at every diffusion step.")] = 64,
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the choice of images and of their noise.")] = 0,
    no_class: Annotated[
        bool,
        typer.Option("--no-class", help="Evaluate a model with classes for no class instead of the images' classes."),
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.", metavar="NAME")] = "auto",
    plot: Annotated[Path | None, typer.Option(help="Plot the moments to this file.", metavar="FILE.png")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing outputs.")] = False,
) -> None:
    """Measure E |epsilon(x_t, t)|^2 at every diffusion step, and save it with the model.

    The solvers analytic-dpm, analytic-ddim and analytic-dpm-ot need it. A model with classes is evaluated with the
    class of each image.
    """
    from sddpm.files import FIGURES, Output, atomic_path, check_outputs
    from sddpm.pipelines.moments import keep_moments, measure_moments, read_moments
    from sddpm.pipelines.resolving import own_folder

    own_folder(model)  # for its checks, before the long work
    if read_moments(model) is not None and not force:
        raise UserError(f"the moments of {model} were already measured; pass --force to measure them again")
    if plot is not None:
        check_outputs([Output(plot, "--plot", FIGURES)], inputs=filter(None, (model, config, data)), force=force)
    if batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, not {batch_size}")

    from sddpm.diffusion.noise import check_seeds
    from sddpm.pipelines import load_pipeline
    from sddpm.pipelines.devices import pick_device

    check_seeds([seed])
    section = data_section(model, config, data)
    pipeline = load_pipeline(model, pick_device(device))
    if no_class and pipeline.num_classes is None:
        raise UserError("--no-class needs a model with classes: leave it out, this model has none")
    batches = training_images(
        section, None if no_class else pipeline.num_classes, samples, batch_size, seed, pipeline.class_names
    )
    found = measure_moments(pipeline, batches, count=samples, seed=seed)
    keep_moments(model, found)
    typer.echo(
        f"saved with {model}: the moments of {len(found.h)} diffusion steps, from {found.samples} images; "
        f"largest standard error {max(found.standard_error):.2g}"
    )
    if plot is not None:
        with atomic_path(plot) as temporary:
            draw(found, pipeline.scheduler.alphas_cumprod).savefig(temporary)


def data_section(model: Path, config: str | None, data: str | None) -> "DataConfig":
    """The training images of a model: the data section of its run, or of `config`, with its path or `data`."""
    from sddpm.training import load_config

    run_config = model / "config.yaml"
    if config is None and not run_config.is_file():
        raise UserError(f"{model} is not the folder of a run: give its training data with --config CONFIG")
    section = load_config(config or run_config).data
    return section if data is None else section.model_copy(update={"path": data})


def training_images(
    section: "DataConfig",
    num_classes: int | None,
    count: int,
    batch_size: int,
    seed: int,
    class_names: "Sequence[str] | None" = None,
) -> "Iterator[tuple[Tensor, Tensor | None]]":
    """`count` random training images of the model, in batches uint8 [B, C, H, W], with their classes, LongTensor [B],
    if there are `num_classes` of them, numbered as in `class_names`."""
    import torch

    from sddpm.data import iterate_batches, random_flip
    from sddpm.data.classes import use_class_order
    from sddpm.data.open import open_configured
    from sddpm.training.batches import check_labels

    dataset = open_configured(section)
    use_class_order(dataset, class_names)
    if count > len(dataset):
        raise UserError(f"{dataset.name} has {len(dataset):,} images, fewer than --samples {count:,}")
    if num_classes is not None and dataset.labels is None:
        raise UserError(f"{dataset.name} has no class labels: use --no-class to measure without classes")
    check_labels(dataset, num_classes)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(dataset), generator=generator)[:count].split(batch_size)

    def batches() -> "Iterator[tuple[Tensor, Tensor | None]]":
        for images, indices in zip(iterate_batches(dataset, chosen), chosen, strict=True):
            flipped = random_flip(images, generator) if section.flip else images
            yield flipped, None if num_classes is None or dataset.labels is None else dataset.labels[indices]

    return batches()


def draw(found: "Moments", alphas_cumprod: Any) -> Any:
    """Plot the moments, and the resulting noise for 50 steps next to the two choices of DDPM."""
    import torch

    from sddpm.diffusion.reverse_variance import (
        ancestral_variance,
        optimal_variance,
        posterior_variance,
    )
    from sddpm.diffusion.timesteps import even_trajectory
    from sddpm.figures.moments import moments_figure

    timesteps = torch.tensor(even_trajectory(min(51, len(found.h)), len(found.h)))
    a = alphas_cumprod.double().cpu()
    posterior = posterior_variance(a, torch.tensor(found.h), 1.0)[timesteps[:-1]]
    a_t, a_s = a[timesteps[:-1]], a[timesteps[1:]]
    small = ancestral_variance(a_t, a_s)
    rules = {
        "DDPM, fixed large": 1 - a_t / a_s,
        "optimal for this model": optimal_variance(a_t, a_s, posterior, small),
        "DDPM, fixed small": small,
    }
    deviations = {rule: values.sqrt().tolist() for rule, values in rules.items()}
    return moments_figure(found.h, found.standard_error, timesteps[:-1].tolist(), deviations)
