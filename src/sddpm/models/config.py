"""What a U-Net can be built from, and what it can be fed: checks that fail in one line."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sddpm.errors import UserError
from sddpm.neurons import NEURONS, SURROGATES
from sddpm.neurons.definition import RESERVED
from sddpm.registry import missing

MOST_TIMESTEPS = 1_000_000
# Far beyond any network that anybody trains: larger numbers of a damaged or hostile config end in a line, and not in
# all the memory, or hours.
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
    """What the network was made for: (C, H, W) of images, (C, L) of signals."""
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
    """Raise `UserError` for numbers from which no spiking network can be built."""
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
        raise UserError("synaptic_currents needs pure = true, and is neither for classes nor for signals")
    check_shape(config)


def check_shape(config: Mapping) -> None:
    """Raise `UserError` for sizes of levels and images from which no network, spiking or not, can be built."""
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
        raise UserError(f"channel_mult must list a number for each of at most {MOST_LEVELS} levels, got {mult!r}")
    if not mult or any(type(m) is not int or not 1 <= m <= MOST["channel_mult"] for m in mult):
        raise UserError(f"channel_mult must list a whole number of at least 1 for every level, got {list(mult)}")
    if config["sample_size"] % size_divisor(config):
        raise UserError(
            f"sample_size {config['sample_size']} cannot be halved by {len(mult)} levels at patch_size "
            f"{config['patch_size']}: it must be a multiple of {size_divisor(config)}"
        )


def attention_levels(config: Mapping) -> list[bool]:
    """For each level, from the first, whether its blocks have attention. Raises `UserError` for heights of none."""
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
    """The image [B, ...] of a sample; of synaptic currents [T, B, ...] the first. Raises `UserError` for another T."""
    if not config["synaptic_currents"] or sample.ndim != 5:
        return sample
    if len(sample) != config["T"]:
        raise UserError(f"synaptic currents are needed at T = {config['T']} time steps, got {list(sample.shape)}")
    return sample[0]


def check_sample(config: Mapping, shape: tuple[int, ...]) -> None:
    """Raise `UserError` for a sample that the network cannot take."""
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
    """The classes of a sample [B, ...], LongTensor [B]: num_classes, for no class, where none are given.

    None for a model that knows no classes. Raises `UserError` for classes that it cannot take.
    """
    if class_labels is None:
        count = config["num_classes"]
        return None if count is None else torch.full((len(sample),), count, device=sample.device)
    if config["num_classes"] is None:
        raise UserError("class_labels were given, but this model knows no classes: it was built without num_classes")
    if class_labels.shape != (len(sample),):
        raise UserError(f"{len(sample)} samples need class_labels [{len(sample)}], got {list(class_labels.shape)}")
    return class_labels.to(sample.device).long()
