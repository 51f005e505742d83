"""Power-function averages stored next to a run's checkpoints; `posthoc` computes an average of any length from them.

snapshots/step-0001000.safetensors   "0.05/encoder.conv.weight", ...: by relative width and the weight's name
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from sddpm.files import atomic_path


def prefix_of(width: float) -> str:
    """The prefix of the tensor names of a relative width."""
    return f"{width}/"


def named_averages(power: Mapping[float, nn.Module]) -> dict[str, Tensor]:
    """The tensors of all averages, named by relative width: "0.05/encoder.conv.weight"."""
    return {
        prefix_of(width) + name: value.contiguous()
        for width, model in power.items()
        for name, value in model.state_dict().items()
    }


def of_width(tensors: Mapping[str, Tensor], width: float) -> dict[str, Tensor]:
    """The state dict of one width, from the result of `named_averages`."""
    prefix = prefix_of(width)
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def save_snapshot(run_dir: Path, step: int, power: Mapping[float, nn.Module]) -> None:
    """Write the averages of a step. Raises `UserError` if the disk is full."""
    with atomic_path(run_dir / "snapshots" / f"step-{step:07d}.safetensors") as temporary:
        save_file(named_averages(power), temporary)


def list_snapshots(run_dir: Path) -> dict[int, Path]:
    """{step: file}, oldest first."""
    found = (run_dir / "snapshots").glob("step-*.safetensors")
    return dict(sorted((int(path.stem[5:]), path) for path in found if path.stem[5:].isdecimal()))


def drop_later_snapshots(run_dir: Path, step: int) -> None:
    """Delete the snapshots of steps after `step`, from which the run continues."""
    for of_step, path in list_snapshots(run_dir).items():
        if of_step > step:
            path.unlink()
