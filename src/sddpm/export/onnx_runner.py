"""Sampling from an ONNX file with onnxruntime: the same pipeline, seeds and solvers, with the file's network."""

import sys
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor, nn

from sddpm.errors import UserError
from sddpm.export.onnx_file import OnnxFile, read_onnx
from sddpm.models.config import check_sample, labels_for
from sddpm.pipelines import SpikingDiffusionPipeline

LATER = ("num_inference_steps", "samplers", "sampler")  # files of sddpm 0.2 lack them


class OnnxUNet(nn.Module):
    """A network in an ONNX file, called like the original network; on the CPU, in float32.

    `firing_rates` [B, layers] are those of the last call, if the file has this output; else None.

    Args:
        file: the result of `read_onnx`.

    Raises:
        UserError: a graph that onnxruntime cannot run.
    """

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, file: OnnxFile):
        super().__init__()
        self.config: Any = FrozenDict(file.metadata["config"])
        self.firing_rates: Tensor | None = None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(file.content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no exception class of its own
            raise UserError(f"onnxruntime cannot run this ONNX file: {str(error).splitlines()[0]}") from error

    def at_threshold(self, thresholds: object) -> Any:
        """Raises `UserError`."""
        raise UserError("firing thresholds are part of an ONNX file: export the model again with other thresholds")

    def forward(self, sample: Tensor, timestep: Tensor | int, class_labels: Tensor | None = None) -> Any:
        """As in `SpikingUNet2DModel`."""
        image = sample[0] if self.config.get("synaptic_currents") else sample
        check_sample(self.config, tuple(image.shape))
        t = torch.as_tensor(timestep).long().expand(len(image))
        labels = labels_for(self.config, class_labels, image)
        feed = {"x_t": sample.float().numpy(), "t": t.numpy()} | ({} if labels is None else {"class": labels.numpy()})
        prediction, *rates = map(torch.from_numpy, self._session.run(None, feed))
        self.firing_rates = rates[0] if rates else None
        return SimpleNamespace(sample=prediction)


def load_onnx(path: str | PathLike[str]) -> SpikingDiffusionPipeline:
    """The pipeline of an ONNX file that `export_onnx` wrote. It samples on the CPU, with the file's thresholds.

    Raises:
        UserError: no such file, or one that is damaged, written by other software, or that onnxruntime cannot run.
    """
    file = read_onnx(Path(path))
    data = file.metadata
    try:
        scheduler = _scheduler(data["scheduler"], data["scheduler_config"])
        unet: Any = OnnxUNet(file)
        parts = {name: data[name] for name in ("class_names", "signal_range", "x0_scale")}
        parts |= {name: data.get(name) for name in LATER}
        return SpikingDiffusionPipeline(unet, scheduler, **parts)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: its metadata has no {error}") from error


def _scheduler(name: list[str], config: Mapping[str, Any]) -> SchedulerMixin:
    """The scheduler named in the metadata. Raises `UserError` if sddpm and diffusers do not have it."""
    module, kind = name
    found = getattr(sys.modules.get(module), kind, None)
    if not (isinstance(found, type) and issubclass(found, SchedulerMixin)):
        raise UserError(f"this ONNX file names the scheduler {kind} of {module}, which is not in sddpm or diffusers")
    return found.from_config(config)  # type: ignore[attr-defined]
