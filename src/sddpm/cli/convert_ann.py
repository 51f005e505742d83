"""`sddpm convert-ann`: converts a network with quantised activations to a spiking one."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sddpm.cli.app import app
from sddpm.cli.moments import data_section
from sddpm.cli.options import refuse_options
from sddpm.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from sddpm.conversion.ann_errors import ConversionErrors
    from sddpm.data import ImageDataset
    from sddpm.pipelines import SpikingDiffusionPipeline


@app.command("convert-ann")
def convert_ann(
    ctx: typer.Context,
    model: Annotated[
        Path,
        typer.Argument(metavar="RUN|MODEL", help="A run or saved model that was trained with model.kind=quantized."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder for the spiking model.")],
    T: Annotated[
        int | None, typer.Option("--T", help="SNN time steps. (default: the number of levels above 0)")
    ] = None,
    signed: Annotated[bool, typer.Option("--signed", help="Neurons may emit -1 to cancel a surplus spike.")] = False,
    finetune_steps: Annotated[
        int, typer.Option(help="Steps of fine-tuning every block to its output before the conversion.")
    ] = 0,
    lr: Annotated[float, typer.Option(help="Learning rate of the first of these steps; it decays to 0.")] = 3e-4,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 32,
    report: Annotated[
        Path | None,
        typer.Option(help="Measure the error of every layer, and write it to this file.", metavar="FILE.json"),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Plot these errors to this file.", metavar="FILE.png")] = None,
    report_images: Annotated[int, typer.Option(help="Number of images for this measurement.")] = 256,
    config: Annotated[
        str | None,
        typer.Option(help="Config whose data section names the images. (default: that of the run)", metavar="CONFIG"),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Location of the data.", metavar="FOLDER|ZIP")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of images, noise and t.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.", metavar="NAME")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace existing outputs.")] = False,
) -> None:
    """Convert a network with quantised activations to a spiking network, weight by weight.

    By default T is the number of levels above 0: activation_levels, or 2^b - 1 for b bits. --finetune-steps and
    --report need the training images. For a run, OUT also contains a config.yaml to continue the training:
    sddpm train OUT/config.yaml --init-from OUT
    """
    from sddpm.files import FIGURES, Output, atomic_path, check_outputs

    outputs = [Output(out, "OUT", folder=("model",))]
    outputs += [Output(report, "--report")] if report is not None else []
    outputs += [Output(plot, "--plot", FIGURES)] if plot is not None else []
    check_outputs(outputs, inputs=filter(None, (model, config, data)), force=force)
    for option, value, least in (
        ("--finetune-steps", finetune_steps, 0),
        ("--batch-size", batch_size, 1),
        ("--T", 1 if T is None else T, 1),
        ("--report-images", report_images, 1),
    ):
        if value < least:
            raise UserError(f"{option} must be at least {least}, not {value}")
    if not 0 < lr < math.inf:
        raise UserError(f"--lr must be above 0 and finite, not {lr}")
    measures = report is not None or plot is not None
    if not finetune_steps:
        refuse_options(ctx, ("lr",), "is only for --finetune-steps N: leave it out")
    if not measures:
        refuse_options(ctx, ("report_images",), "is only for --report and --plot: leave it out")
    if not (finetune_steps or measures):
        names = ("batch_size", "config", "data", "seed")
        refuse_options(ctx, names, "is only for --finetune-steps N, --report and --plot: leave it out")

    from sddpm.conversion.ann import convert_ann as convert
    from sddpm.conversion.ann_errors import conversion_errors
    from sddpm.conversion.finetuning import finetune_blocks
    from sddpm.conversion.training import continued_config
    from sddpm.data.classes import use_class_order
    from sddpm.data.open import open_configured
    from sddpm.diffusion.noise import check_seeds
    from sddpm.diffusion.solvers import without_moments
    from sddpm.pipelines import load_pipeline
    from sddpm.pipelines.devices import pick_device
    from sddpm.training import load_config
    from sddpm.training.batches import check_labels
    from sddpm.training.config_files import to_yaml
    from sddpm.training.history import Stage, stages_of, write_history

    check_seeds([seed])
    pipeline = load_pipeline(model, pick_device(device))
    ann, spiking = pipeline.unet.eval(), convert(pipeline.unet, T=T, signed=signed)
    found: dict[str, ConversionErrors] = {}
    if finetune_steps or measures:
        dataset = open_configured(data_section(model, config, data))
        use_class_order(dataset, pipeline.class_names)
        check_labels(dataset, pipeline.num_classes)

        def batches(seed: int, count: int) -> "Iterator[tuple[Tensor, ...]]":
            return noisy_images(pipeline, dataset, count, batch_size, seed)

        def measure(what: str) -> None:
            if measures:
                found[what] = conversion_errors(ann, spiking, batches(seed, report_images))

        measure("converted")
        if finetune_steps:
            wanted = batches(seed + 1, finetune_steps * batch_size)
            finetune_blocks(ann, spiking, wanted, steps=finetune_steps, lr=lr, callback=teller(finetune_steps))
            measure("fine-tuned")
    pipeline.register_modules(unet=spiking, scheduler=without_moments(pipeline.scheduler))
    with atomic_path(out) as temporary:
        pipeline.save_pretrained(temporary)
        converted = Stage(what="converted", kind="spiking", T=spiking.config["T"])
        write_history(temporary, [*stages_of(model), converted])
        if (run_config := model / "config.yaml").is_file():
            continued = continued_config(load_config(run_config), spiking.config)
            (temporary / "config.yaml").write_text(to_yaml(continued), encoding="utf-8")
    if report is not None:
        content = {name: errors.to_dict() for name, errors in found.items()}
        with atomic_path(report) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if plot is not None:
        with atomic_path(plot) as temporary:
            draw(found).savefig(temporary)
    if found:
        print_errors(found)
    typer.echo(f"saved {out}: {len(spiking.neurons())} layers of IF neurons, T = {spiking.config['T']}")


def noisy_images(
    pipeline: "SpikingDiffusionPipeline", dataset: "ImageDataset", count: int, batch_size: int, seed: int
) -> "Iterator[tuple[Tensor, ...]]":
    """At least `count` random images of a data set, with noise: x_t [B, C, H, W], t [B] and, if the model has classes,
    the images' labels [B]."""
    import torch

    from sddpm.data import iterate_batches, to_model
    from sddpm.diffusion.schedule import add_noise

    unet, alphas_cumprod = pipeline.unet, pipeline.scheduler.alphas_cumprod.cpu()
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(dataset), (-(-count // batch_size), batch_size), generator=generator)
    for images, indices in zip(iterate_batches(dataset, chosen), chosen, strict=True):
        x0 = to_model(images, unet.dtype)
        t = torch.randint(len(alphas_cumprod), (len(x0),), generator=generator)
        noise = torch.randn(x0.shape, generator=generator).to(x0)
        batch = [add_noise(alphas_cumprod, x0, noise, t), t]
        if pipeline.num_classes is not None and dataset.labels is not None:
            batch.append(dataset.labels[indices])
        yield tuple(part.to(unet.device) for part in batch)


def teller(steps: int):
    """A callback that prints the progress of fine-tuning about ten times."""
    every = max(1, steps // 10)

    def tell(step: int, loss: float) -> None:
        if step == 1 or step % every == 0 or step == steps:
            typer.echo(f"step {step}/{steps}, mean relative squared error of a block {loss:.4f}", err=True)

    return tell


def print_errors(found: "Mapping[str, ConversionErrors]") -> None:
    """Print one line per layer: relative error of its mean spikes, share of neurons that fired too often or too
    rarely."""
    rows = list(found.values())
    typer.echo(f"{'layer of neurons':32}" + "".join(f"{name:>12} {'differing':>10}" for name in found))
    for layers in zip(*(errors.layers for errors in rows), strict=True):
        cells = "".join(f"{layer.relative_error:12.4f} {layer.differing:10.2%}" for layer in layers)
        typer.echo(f"{layers[0].name:32}{cells}")
    typer.echo(f"{'prediction':32}" + "".join(f"{errors.prediction:12.4f} {'':10}" for errors in rows).rstrip())


def draw(found: "Mapping[str, ConversionErrors]") -> "Figure":
    """Plot these errors."""
    from sddpm.figures.conversion import conversion_figure

    layers = [layer.name for layer in next(iter(found.values())).layers]
    errors = {name: [layer.relative_error for layer in each.layers] for name, each in found.items()}
    return conversion_figure(layers, errors)
