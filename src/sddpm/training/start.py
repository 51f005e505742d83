"""Loading initial weights from a saved model or run."""

from collections.abc import Mapping
from pathlib import Path

from diffusers.models.modeling_utils import ModelMixin

from sddpm.errors import UserError
from sddpm.models.modulation import modulation_scales
from sddpm.pipelines import load_pipeline

SECOND_OF_TAIL = ("readout.out_conv.", "readout.out_norm.")
# These do not change predictions at the start.
ADDED = ("temporal_modulation", "num_classes", "attention_resolutions", "input_skip")


def load_weights(model: ModelMixin, source: str | Path) -> list[str]:
    """Copy the weights of a saved model or a run into `model`.

    A model with temporal modulation, classes, attention or an input skip can start from one without: its scales are
    then 1 (SDM, arXiv 2408.16467), its class embeddings and gains 0 and its attention adds 0, so that predictions are
    the same. A model with pure wiring can start from one without. It has no second convolution in its readout and
    loads only the first one.

    Returns:
        Remaining differences of the two networks, such as "T = 8 (there 4)": the weights fit but predictions change.

    Raises:
        UserError: `source` is not a model or run, or its weights are of another network.
    """
    unet = load_pipeline(source).unet
    weights, own = unet.state_dict(), model.state_dict()
    if model.config.get("pure"):
        weights = {name: weight for name, weight in weights.items() if not name.startswith(SECOND_OF_TAIL)}
    places = {_unwrapped(name): name for name in own}
    weights = {_place(name, places): weight for name, weight in weights.items()}
    added = {f"{name}.p" for name in modulation_scales(model)}
    added |= {name for name in own if ".attention." in name or "class_embedding." in name or name.startswith("skip.")}
    missing = [name for name in own if name not in weights and name not in added]
    surplus = [name for name in weights if name not in own]
    other = [
        f"{name} {list(weights[name].shape)} for {list(own[name].shape)}"
        for name in weights
        if name in own and weights[name].shape != own[name].shape
    ]
    for problem, names in (("lacks", missing), ("has in addition", surplus), ("has in another shape", other)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(
                f"{source} does not fit the config's model section: it {problem} {', '.join(names[:3])}{more}"
            )
    model.load_state_dict({**own, **weights})
    shared = [key for key in model.config if key in unet.config and key not in ADDED]
    return [
        f"{key} = {model.config[key]} (there {unet.config[key]})"
        for key in shared
        if not key.startswith("_") and _plain(model.config[key]) != _plain(unet.config[key])
    ]


def _unwrapped(name: str) -> str:
    """The name of a weight in a network without attention; attention wraps the block that it follows."""
    return name.replace(".block.", ".")


def _place(name: str, places: Mapping[str, str]) -> str:
    """The name in the model of a weight of the source; either, both or neither may have attention."""
    return places.get(_unwrapped(name), name)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value  # JSON has no tuples
