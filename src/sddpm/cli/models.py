"""Models given on the command line: a name, a folder, a run, or a file written by sddpm export."""

from pathlib import Path
from typing import TYPE_CHECKING

from sddpm.errors import UserError

if TYPE_CHECKING:
    import torch

    from sddpm.pipelines import SpikingDiffusionPipeline


def open_model(model: Path, device: "torch.device | str" = "cpu") -> "SpikingDiffusionPipeline":
    """The pipeline of a model, or of FILE.onnx. Raises `UserError`."""
    if model.suffix.lower() != ".onnx" or model.is_dir():
        from sddpm.pipelines import load_pipeline

        return load_pipeline(model, device)
    try:
        from sddpm.export.onnx_runner import load_onnx
    except ImportError as error:
        raise UserError(
            f"{model} needs the extra onnx: pip install '.[onnx]' in the folder of the project ({error})"
        ) from error
    return load_onnx(model)
