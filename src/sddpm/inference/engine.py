"""Which form of a model a pipeline samples with."""

import logging
from typing import cast

import torch
from torch import nn

from sddpm.errors import UserError
from sddpm.inference.compiled import MODES, CompiledUNet, compile_model
from sddpm.inference.support import unsupported
from sddpm.models import SpikingUNet2DModel

ENGINES = ("auto", "eager", *MODES)
PAYS_FROM_STEPS = 5

logger = logging.getLogger(__name__)


def check_engine(engine: str, unet: nn.Module) -> None:
    """Raise `UserError` for an engine that does not exist, or that this model cannot be compiled for."""
    if engine not in ENGINES:
        raise UserError(f"unknown engine {engine!r}: choose one of {', '.join(ENGINES)}")
    reason = unsupported(unet, engine) if engine in MODES else None
    if reason is not None:
        raise UserError(f"engine {engine!r}: this model cannot be compiled: {reason}")


class Engines:
    """The compiled forms of one pipeline's model, made when they are first needed."""

    def __init__(self) -> None:
        self._compiled: dict[str, CompiledUNet] = {}
        self._said: set[str] = set()

    def choose(self, unet: nn.Module, engine: str, steps: int) -> nn.Module:
        """The model to sample `steps` steps with: `unet` itself or a compiled form of it.

        "auto" is exact mode where the model can be compiled and that pays. How many images there are does not enter:
        the picture of a seed must not depend on it.

        Raises:
            UserError: as of `check_engine`.
        """
        check_engine(engine, unet)
        if engine == "auto":
            engine = "exact" if self._worthwhile(unet, steps) else "eager"
        if engine == "eager":
            return unet
        compiled = self._compiled.get(engine)
        if compiled is None or compiled.unet is not unet:
            compiled = self._compiled[engine] = compile_model(cast(SpikingUNet2DModel, unet), engine)
        return compiled

    def _worthwhile(self, unet: nn.Module, steps: int) -> bool:
        # Measured for float32 on CPUs alone.
        spiking = type(unet) is SpikingUNet2DModel and unet.device.type == "cpu" and unet.dtype == torch.float32
        if not spiking or steps < PAYS_FROM_STEPS:
            return False
        reason = unsupported(unet, "exact")
        if reason is not None and reason not in self._said:
            self._said.add(reason)
            logger.warning("sampling without compiling the model: %s", reason)
        return reason is None
