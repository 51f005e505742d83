"""Power-function averages kept beside a run's checkpoints, from which `posthoc` makes one of any length.

snapshots/step-0001000.safetensors   "0.05/encoder.conv.weight", ...: by relative width and the weight's name
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from sddpm.files import atomic_path


def prefix_of(width: float) -> str:
    """What the names of the tensors of a relative width begin with."""
    return f"{width}/"


def named_averages(power: Mapping[float, nn.Module]) -> dict[str, Tensor]:
    """The tensors of averages by relative width: "0.05/encoder.conv.weight"."""
    return {
        prefix_of(width) + name: value.contiguous()
        for width, model in power.items()
        for name, value in model.state_dict().items()
    }


def of_width(tensors: Mapping[str, Tensor], width: float) -> dict[str, Tensor]:
    """What `named_averages` made of one width: its state dict."""
    prefix = prefix_of(width)
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def save_snapshot(run_dir: Path, step: int, power: Mapping[float, nn.Module]) -> None:
    """Write the averages of a step. Raises `UserError` for a full disk."""
    with atomic_path(run_dir / "snapshots" / f"step-{step:07d}.safetensors") as temporary:
        save_file(named_averages(power), temporary)


def list_snapshots(run_dir: Path) -> dict[int, Path]:
    """{step: file}, oldest first."""
    found = (run_dir / "snapshots").glob("step-*.safetensors")
    return dict(sorted((int(path.stem[5:]), path) for path in found if path.stem[5:].isdecimal()))


def drop_later_snapshots(run_dir: Path, step: int) -> None:
    """Delete snapshots of steps that a run which goes on from `step` has yet to do."""
    for of_step, path in list_snapshots(run_dir).items():
        if of_step > step:
            path.unlink()
