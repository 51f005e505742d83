"""`sddpm convert`: imports and exports checkpoints of the reference code."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sddpm.cli.app import app
from sddpm.errors import UserError


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
    exported in the reference's layout.
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
    unet = load_pipeline(source).unet
    if not isinstance(unet, SpikingUNet2DModel):
        raise UserError(f"{source} holds a {type(unet).__name__}; the reference's layout needs a spiking U-Net")
    save_reference(unet, out)
    print(f"saved {out} in the reference's layout")
