"""Models given on the command line: a name, a folder, a run, or a file written by sddpm export."""

from pathlib import Path
from typing import TYPE_CHECKING

from sddpm.errors import UserError

if TYPE_CHECKING:
    from sddpm.pipelines.streaming import StreamingPipeline


def open_model(model: Path, device: str = "auto") -> "StreamingPipeline":
    """The pipeline of a model on a device, as in `pick_device`, or of FILE.onnx on the CPU. Raises `UserError`."""
    if model.suffix.lower() != ".onnx" or model.is_dir():
        from sddpm.pipelines.devices import pick_device
        from sddpm.pipelines.plain import load_plain

        return load_plain(model, pick_device(device))
    if device not in ("auto", "cpu"):
        raise UserError(f"{model} samples on the CPU, not on {device!r}: leave out --device")
    try:
        from sddpm.export.onnx_runner import load_onnx
    except ImportError as error:
        raise UserError(
            f"{model} needs the extra onnx: pip install '.[onnx]' in the folder of the project ({error})"
        ) from error
    return load_onnx(model)
