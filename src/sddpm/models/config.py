"""Checks of a U-Net's configuration and of its inputs. Each fails with a one-line message."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sddpm.errors import UserError
from sddpm.neurons import NEURONS, SURROGATES
from sddpm.neurons.definition import RESERVED
from sddpm.registry import missing

MOST_TIMESTEPS = 1_000_000
# Far beyond any network in use. Larger numbers of a damaged or hostile config end in a one-line error instead of using
# up all memory or running for hours.
MOST = {
    "T": 4096,
    "sample_size": 2**20,
    "in_channels": 2**16,
    "out_channels": 2**16,
    "base_channels": 2**16,
    "num_res_blocks": 256,
    "num_train_timesteps": MOST_TIMESTEPS,
    "patch_size": 2**12,
    "num_classes": 10**7,
    "channel_mult": 2**10,
}
MOST_LEVELS = 16


def size_divisor(config: Mapping) -> int:
    """Height and width must be multiples of this: every level but the last halves, after the patches."""
    return config["patch_size"] * 2 ** (len(config["channel_mult"]) - 1)


def sample_shape(config: Mapping) -> tuple[int, ...]:
    """Shape of one sample: (C, H, W) for images, (C, L) for signals."""
    size = config["sample_size"]
    if config.get("dims", 2) == 1:
        return config["in_channels"], size
    return (config["in_channels"], size, size) if isinstance(size, int) else (config["in_channels"], *size)


def check_registered(config: Mapping) -> None:
    """Raise `UserError` if a saved configuration needs a neuron or surrogate that is not registered."""
    for parts, kind in ((NEURONS, "neuron"), (SURROGATES, "surrogate")):
        if (name := config.get(kind)) is not None and name not in parts and name not in RESERVED:
            raise UserError(f"this model {missing(parts, kind, name)}")


def check_config(config: Mapping) -> None:
    """Raise `UserError` if the numbers do not describe a valid spiking network."""
    _check_counts(config, ("T",))
    if not 0 < config["readout_decay"] <= 1:
        raise UserError(f"readout_decay must be above 0 and at most 1, got {config['readout_decay']}")
    if config["dims"] not in (1, 2):
        raise UserError(f"dims must be 2 for images or 1 for signals, got {config['dims']!r}")
    if config["neuron"] == "quantized_relu" and (
        config["T"] != 1 or not config["pure"] or config["temporal_modulation"]
    ):
        raise UserError("neuron 'quantized_relu' needs pure = true, T = 1 and no temporal modulation")
    if config["synaptic_currents"] and (not config["pure"] or config["num_classes"] is not None or config["dims"] == 1):
        raise UserError("synaptic_currents needs pure = true, num_classes = None and dims = 2")
    if config["input_skip"] and (config["synaptic_currents"] or config["in_channels"] != config["out_channels"]):
        raise UserError("input_skip needs synaptic_currents = False and as many out_channels as in_channels")
    check_shape(config)


def check_shape(config: Mapping) -> None:
    """Raise `UserError` for invalid sizes of levels and images of a network, spiking or not."""
    counts = ("sample_size", "in_channels", "out_channels", "base_channels", "num_res_blocks", "num_train_timesteps")
    _check_counts(config, (*counts, "patch_size"))
    if config["num_classes"] is not None:
        _check_counts(config, ("num_classes",))
    if config["base_channels"] % 2:
        raise UserError(
            f"base_channels must be even (half are sines, half cosines of t), got {config['base_channels']}"
        )
    mult = config["channel_mult"]
    if not isinstance(mult, list | tuple) or len(mult) > MOST_LEVELS:
        raise UserError(
            f"channel_mult must list one number for each level and at most {MOST_LEVELS} levels, got {mult!r}"
        )
    if not mult or any(type(m) is not int or not 1 <= m <= MOST["channel_mult"] for m in mult):
        raise UserError(
            f"channel_mult must be a list of whole numbers of at least 1, one for each level, got {list(mult)}"
        )
    if config["sample_size"] % size_divisor(config):
        raise UserError(
            f"sample_size {config['sample_size']} cannot be halved by {len(mult)} levels at patch_size "
            f"{config['patch_size']}: it must be a multiple of {size_divisor(config)}"
        )


def attention_levels(config: Mapping) -> list[bool]:
    """For each level, from the first, whether its blocks have attention. Raises `UserError` for a height that no level
    has."""
    size = config["sample_size"] // config["patch_size"]
    heights = [size // 2**i for i in range(len(config["channel_mult"]))]
    for wanted in config["attention_resolutions"]:
        if wanted not in heights:
            levels = ", ".join(map(str, heights))
            raise UserError(
                f"attention_resolutions names {wanted}; the levels of this network are {levels} pixels high"
            )
    return [height in config["attention_resolutions"] for height in heights]


def _check_counts(config: Mapping, names: tuple[str, ...]) -> None:
    for name in names:
        value = config[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
        if value > MOST[name]:
            raise UserError(f"{name} must be at most {MOST[name]:,}, got {value}")


def first_step(config: Mapping, sample: Tensor) -> Tensor:
    """The image [B, ...] of a sample; for synaptic currents [T, B, ...] the first time step. Raises `UserError` for
    another T."""
    if not config["synaptic_currents"] or sample.ndim != 5:
        return sample
    if len(sample) != config["T"]:
        raise UserError(
            f"synaptic currents must have T = {config['T']} time steps in their first dimension, got "
            f"{list(sample.shape)}"
        )
    return sample[0]


def check_sample(config: Mapping, shape: tuple[int, ...]) -> None:
    """Raise `UserError` for a sample of the wrong shape."""
    divisor = size_divisor(config)
    if config.get("dims", 2) == 1:
        if len(shape) != 3 or shape[1] != config["in_channels"]:
            raise UserError(f"expected signals [B, {config['in_channels']}, L], got {list(shape)}")
        if shape[2] % divisor:
            raise UserError(f"the length must be a multiple of {divisor}, got {shape[2]}")
        return
    if len(shape) != 4 or shape[1] != config["in_channels"]:
        raise UserError(f"expected a sample [B, {config['in_channels']}, H, W], got {list(shape)}")
    if shape[2] % divisor or shape[3] % divisor:
        raise UserError(f"height and width must be multiples of {divisor}, got {shape[2]} x {shape[3]}")


def labels_for(config: Mapping, class_labels: Tensor | None, sample: Tensor) -> Tensor | None:
    """The class labels of a sample [B, ...] as a LongTensor [B]; num_classes (no class) if none are given.

    None for an unconditional model. Raises `UserError` for invalid classes.
    """
    if class_labels is None:
        count = config["num_classes"]
        return None if count is None else torch.full((len(sample),), count, device=sample.device)
    if config["num_classes"] is None:
        raise UserError("class_labels were given, but this model has no classes: it was built without num_classes")
    if class_labels.shape != (len(sample),):
        raise UserError(f"{len(sample)} samples need class_labels [{len(sample)}], got {list(class_labels.shape)}")
    _check_rows("class_labels", class_labels, config["num_classes"])
    return class_labels.to(sample.device).long()


def steps_for(config: Mapping, timestep: Tensor | int, count: int) -> Tensor:
    """The diffusion steps of `count` samples as a LongTensor [count]; those of a number are on the CPU. Raises
    `UserError` for steps outside the network's schedule."""
    t = timestep if isinstance(timestep, Tensor) else torch.tensor(timestep, device="cpu")
    _check_rows("diffusion steps", t, config["num_train_timesteps"] - 1)
    return t.long().expand(count)


def _check_rows(what: str, rows: Tensor, last: int) -> None:
    """Raise `UserError` for numbers outside 0 to `last`. Those on another device than the CPU are not checked, because
    the check would wait for them."""
    if rows.device.type != "cpu" or torch.jit.is_tracing() or torch.compiler.is_compiling():  # pyright: ignore[reportPrivateImportUsage]
        return
    values = rows.tolist()  # compared in Python, so that an export records no comparison
    for value in values if isinstance(values, list) else [values]:
        if not 0 <= value <= last:
            raise UserError(f"{what} must be from 0 to {last}, got {value}")
