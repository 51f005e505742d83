"""Weights to start from, instead of random ones."""

from pathlib import Path

from sddpm.errors import UserError
from sddpm.models import SpikingUNet2DModel
from sddpm.models.layers import ModulatedStepConv2d
from sddpm.pipelines import load_pipeline


def load_weights(model: SpikingUNet2DModel, source: str | Path) -> None:
    """Copy the weights of a saved model, or of a run, into `model`.

    A model with temporal modulation may start from one without: its scales then stay 1 (SDM, arXiv 2408.16467).

    Raises:
        UserError: nothing to load there, or weights of another network.
    """
    weights = load_pipeline(source).unet.state_dict()
    own = model.state_dict()
    scales = {f"{name}.p" for name, module in model.named_modules() if isinstance(module, ModulatedStepConv2d)}
    missing = [name for name in own if name not in weights and name not in scales]
    surplus = [name for name in weights if name not in own]
    other = [name for name in weights if name in own and weights[name].shape != own[name].shape]
    for problem, names in (("lacks", missing), ("has besides", surplus), ("has in another shape", other)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(
                f"{source} does not fit the config's model section: it {problem} {', '.join(names[:3])}{more}"
            )
    model.load_state_dict({**own, **weights})
