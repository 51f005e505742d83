"""Chooses the form of a model for sampling: eager or compiled."""

import logging
from typing import cast

import torch
from torch import nn

from sddpm.choices import check_choice
from sddpm.errors import UserError
from sddpm.inference.compiled import MODES, CompiledUNet, compile_model
from sddpm.inference.dense import Dense
from sddpm.inference.kernels import spike_conv_kernel
from sddpm.inference.support import unsupported
from sddpm.models import SpikingUNet2DModel

ENGINES = ("auto", "eager", *MODES)

logger = logging.getLogger(__name__)


class Engines:
    """The compiled forms of one pipeline's model, made on first use."""

    def __init__(self) -> None:
        self._compiled: dict[str, CompiledUNet] = {}
        self._said: set[str] = set()

    def resolve(self, unet: nn.Module, engine: str) -> str:
        """Resolve `engine` for this model: "eager", or the mode of a compiled form.

        "auto" is exact mode if the model can be compiled and this is faster. The number of images or steps has no
        influence: the picture of a seed must not depend on it.

        Raises:
            UserError: an unknown engine, or a model that cannot be compiled for it.
        """
        check_choice("engine", engine, ENGINES)
        if engine == "eager":
            return engine
        if engine == "auto" and not _worthwhile(unet):
            return "eager"
        mode = "exact" if engine == "auto" else engine
        reason = why_eager(unet, mode) if engine == "auto" else unsupported(unet, mode)
        if engine == mode and reason is not None:
            raise UserError(f"engine {engine!r}: this model cannot be compiled: {reason}")
        if reason is None:
            return mode
        if reason not in self._said:
            self._said.add(reason)
            logger.warning("sampling without compiling the model: %s", reason)
        return "eager"

    def choose(self, unet: nn.Module, engine: str) -> nn.Module:
        """The model to sample with: `unet` itself, or a compiled form of it, as by `resolve`. Raises `UserError`."""
        mode = self.resolve(unet, engine)
        if mode == "eager":
            return unet
        compiled = self._compiled.get(mode)
        if compiled is None or compiled.unet is not unet:
            compiled = self._compiled[mode] = compile_model(cast(SpikingUNet2DModel, unet), mode)
        return compiled


def why_eager(unet: nn.Module, mode: str) -> str | None:
    """Why a model on a CPU is better not compiled in that mode, in a few words, or None if it is."""
    if (reason := unsupported(unet, mode)) is not None:
        return reason
    if not (Dense.available() and spike_conv_kernel() != "float32"):
        return "it would not be faster without the native kernels"
    return None


def _worthwhile(unet: nn.Module) -> bool:
    """Whether the compiled form is faster; measured only for float32 on CPUs."""
    return type(unet) is SpikingUNet2DModel and unet.device.type == "cpu" and unet.dtype == torch.float32
