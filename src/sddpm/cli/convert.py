"""`sddpm convert`: imports and exports checkpoints of the reference code."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sddpm.cli.app import app
from sddpm.diffusion.timesteps import is_distilled
from sddpm.errors import UserError

if TYPE_CHECKING:
    from sddpm.pipelines import SpikingDiffusionPipeline


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="CKPT|MODEL", help="A reference checkpoint, or a saved model.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder for the model, or a .pt file for an export.")],
    T: Annotated[int | None, typer.Option("--T", help="SNN time steps [4; read from TSM checkpoints].")] = None,
    neuron: Annotated[str | None, typer.Option(help="if, lif, plif or a registered neuron [if].")] = None,
    v_threshold: Annotated[float | None, typer.Option(help="Firing threshold [1.0].")] = None,
    image_size: Annotated[int | None, typer.Option(help="Height and width [from x_T, else 32].")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Convert a checkpoint of the reference code (SDDPM or SDM's TSM) to a saved model, or a saved model back.

    A file is read as a checkpoint, without executing its pickle. A folder is read as a model saved by this package and
    exported in the reference's layout, if the reference's code can sample from it in the same way.
    """
    from sddpm.files import Output, check_outputs

    options = {"T": T, "neuron": neuron, "v_threshold": v_threshold, "sample_size": image_size}
    given = {key: value for key, value in options.items() if value is not None}
    if not source.exists():
        raise UserError(f"nothing at {source}: expected a checkpoint file or the folder of a saved model")
    check_outputs([Output(out, folder=None if source.is_dir() else ("model",))], inputs=[source], force=force)
    if source.is_dir():
        _export(source, out, given)
    else:
        _import(source, out, given)


def _import(source: Path, out: Path, given: dict[str, Any]) -> None:
    from sddpm.conversion import from_reference
    from sddpm.diffusion.solvers import make_scheduler
    from sddpm.files import atomic_path
    from sddpm.pipelines import SpikingDiffusionPipeline

    if out.suffix in (".pt", ".pth"):
        raise UserError(f"{out} is a file name, but a converted model is a folder: leave out {out.suffix}")
    conversion = from_reference(source, **given)
    scheduler = make_scheduler("ddpm", num_train_timesteps=conversion.model.config["num_train_timesteps"])
    with atomic_path(out) as temporary:
        SpikingDiffusionPipeline(conversion.model, scheduler).save_pretrained(temporary)
    print(f"{source.name}: {conversion.summary()}")
    print(f"saved {out}")


def _export(source: Path, out: Path, given: dict[str, Any]) -> None:
    from sddpm.conversion import save_reference
    from sddpm.models import SpikingUNet2DModel
    from sddpm.pipelines import load_pipeline

    if given:
        raise UserError(
            f"{', '.join(given)} cannot be changed in an export: leave it out, the model in {source} has its own"
        )
    pipeline = load_pipeline(source)
    unet = pipeline.unet
    if not isinstance(unet, SpikingUNet2DModel):
        raise UserError(f"{source} holds a {type(unet).__name__}; the reference's layout needs a spiking U-Net")
    _check_nothing_is_lost(pipeline, source)
    save_reference(unet, out)
    if pipeline.samplers:
        names = ", ".join(pipeline.samplers)
        print(f"{out} does not have the samplers of {source}, for which its layout has no place: {names}")
    print(f"saved {out} in the reference's layout")


def _check_nothing_is_lost(pipeline: "SpikingDiffusionPipeline", source: Path) -> None:
    """Raise `UserError` for a pipeline whose sampling the reference's code cannot repeat: its checkpoint has the
    network alone, and its prediction and noise schedule are fixed."""
    noise = pipeline.scheduler.config
    if noise.prediction_type != "epsilon":
        raise UserError(f"the reference's network predicts epsilon, that of {source} predicts {noise.prediction_type}")
    schedule = [noise.get(name) for name in ("beta_schedule", "beta_start", "beta_end", "trained_betas")]
    if schedule != ["linear", 1e-4, 0.02, None]:
        words = f"{noise.get('beta_schedule')} from {noise.get('beta_start')} to {noise.get('beta_end')}"
        raise UserError(f"the reference's noise schedule is linear from 0.0001 to 0.02, that of {source} is {words}")
    if is_distilled(noise):
        raise UserError(
            f"{source} samples only at its distilled time steps, for which the reference's layout has no place"
        )
    for what, kept, search in (
        ("firing thresholds", pipeline.guided_thresholds, ""),
        ("an x0_scale", None if pipeline.x0_scale == 1 else pipeline.x0_scale, " --search x0-scale"),
    ):
        if kept is not None:
            raise UserError(
                f"{source} samples with {what}, for which the reference's layout has no place: undo it in a copy with"
                f" sddpm guide COPY --clear{search}"
            )
