"""The spiking U-Net of SDDPM (Cao et al., WACV 2024, arXiv 2306.17046) and of its extension SDM (arXiv 2408.16467)."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.outputs import BaseOutput
from torch import Tensor, nn

from sddpm.errors import UserError
from sddpm.models.attention import AttendedBlock, SpikingSelfAttention
from sddpm.models.blocks import (
    PureSpikingResBlock,
    SpikingDownsample,
    SpikingEncoder,
    SpikingResBlock,
    SpikingUpsample,
)
from sddpm.models.checked import Checked
from sddpm.models.config import (
    attention_levels,
    check_config,
    check_registered,
    check_sample,
    first_step,
    labels_for,
    steps_for,
)
from sddpm.models.embeddings import ClassEmbedding, TimeEmbedding
from sddpm.models.initialization import initialize
from sddpm.models.input_skip import InputSkip
from sddpm.models.layers import make_conv
from sddpm.models.level import Level, Levels
from sddpm.models.patches import from_patches, to_patches
from sddpm.models.readout import CurrentReadout, PureSpikingReadout, SpikingReadout
from sddpm.models.thresholds import Thresholds, apply_thresholds, at_threshold, spiking_neurons
from sddpm.neurons import Dynamics, Option, QuantizedReLU, SpikingNeuron
from sddpm.pretrained import find_model, no_model


@dataclass
class SpikingUNet2DOutput(BaseOutput):
    """sample: [B, out_channels, H, W], the prediction (of epsilon or v, depending on the model's training)."""

    sample: Tensor


class SpikingUNet2DModel(Checked, ModelMixin, ConfigMixin):
    """Predicts the noise in x_t with T time steps of spiking neurons. No state is kept between calls.

    Args:
        sample_size: height and width of the images, or length of the signals, divisible by patch_size * 2^(levels - 1).
        in_channels: channels of x_t.
        out_channels: channels of the prediction.
        base_channels: channels of the first level, even ("ch" of the reference).
        channel_mult: channels of each level in multiples of base_channels.
        num_res_blocks: residual blocks per level on the way down; one more on the way up.
        T: SNN time steps of one evaluation.
        neuron: "if", "lif", "plif" or a registered name (`sddpm.register_neuron`); or "quantized_relu", an activation
            without spikes for networks that are later converted to "if" (`conversion.ann`), which needs pure = True and
            T = 1.
        v_threshold: firing threshold of all neurons, or {layer name pattern: threshold}.
        v_reset: membrane after a spike, or None for the soft reset.
        tau: time constant of LIF; the initial one of PLIF.
        decay_input: whether tau divides the input too.
        detach_reset: keep gradients out of the reset.
        surrogate: a name of `sddpm.neurons.SURROGATES`: "atan", "sigmoid", "rectangle", "triangle",
            "piecewise_quadratic" or a registered name (`sddpm.register_surrogate`).
        surrogate_alpha: inverse width of the surrogate; None for its default.
        temporal_modulation: learn a scale per conv and time step (TSM of SDM).
        readout_decay: weight decay^(T-1-n) of time step n in the readout.
        num_train_timesteps: number of diffusion steps, each with a row in the time embedding.
        patch_size: pixels of a patch are moved into channels before the first layer and back after the last.
        pure: every convolution but the first receives spikes: shortcuts receive the spikes of their block, and the
            readout has neurons. (The time embedding becomes a table with `folding.fold_time`.)
        num_classes: number of image classes; None for an unconditional model.
        initial_charge: membrane of the neurons at the start, in units of the threshold.
        signed_spikes: neurons may also emit -1, which cancels an earlier spike (IF with soft reset).
        activation_bits: of "quantized_relu", which has 2^bits - 1 levels above 0.
        activation_levels: the number of these levels, if it is not 2^bits - 1.
        attention_resolutions: heights of feature maps (inside the network, that is after the patches). At the levels
            with these heights every block is followed by spiking self-attention.
        dims: 2 for images [B, C, H, W]; 1 for signals [B, C, L], which the network treats as images one pixel high and
            convolves along their length only.
        synaptic_currents: denoise the currents of the T time steps instead of the image, which is their mean. Nothing
            has to be decoded between diffusion steps (FSDDIM; Watanabe et al., 2023, arXiv 2312.01742).
        neuron_options: further options of a registered neuron, {name: value}; None for its defaults.
        input_skip: add x_t to the prediction, times a gain learned for each channel, diffusion step and class.

    Raises:
        UserError: the configuration is invalid.
    """

    config_name = "config.json"
    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 3,
        out_channels: int = 3,
        base_channels: int = 128,
        channel_mult: tuple[int, ...] = (1, 2, 2, 4),
        num_res_blocks: int = 2,
        T: int = 4,
        neuron: str = "if",
        v_threshold: float | dict[str, float] = 1.0,
        v_reset: float | None = 0.0,
        tau: float = 2.0,
        decay_input: bool = True,
        detach_reset: bool = False,
        surrogate: str = "atan",
        surrogate_alpha: float | None = None,
        temporal_modulation: bool = False,
        readout_decay: float = 0.8,
        num_train_timesteps: int = 1000,
        patch_size: int = 1,
        pure: bool = False,
        num_classes: int | None = None,
        initial_charge: float = 0.0,
        signed_spikes: bool = False,
        activation_bits: int = 2,
        activation_levels: int | None = None,
        attention_resolutions: tuple[int, ...] = (),
        dims: int = 2,
        synaptic_currents: bool = False,
        neuron_options: dict[str, Option] | None = None,
        input_skip: bool = False,
    ):
        super().__init__()
        check_config(self.config)
        quantized = neuron == "quantized_relu"
        dynamics = Dynamics(
            neuron="if" if quantized else neuron,
            v_reset=v_reset,
            tau=tau,
            decay_input=decay_input,
            detach_reset=detach_reset,
            surrogate=surrogate,
            surrogate_alpha=surrogate_alpha,
            initial_charge=initial_charge,
            signed=signed_spikes,
            options=neuron_options or {},
        )
        if dynamics.options:
            self.register_to_config(neuron_options=dynamics.options)  # defaults may change; a saved model must not
        conv = partial(make_conv, modulated_T=T if temporal_modulation else None, dims=dims)
        patch = patch_size**dims
        if quantized:
            spiking = partial(QuantizedReLU, activation_bits, activation_levels)
        else:
            spiking = partial(SpikingNeuron, dynamics)
        time_channels = 4 * base_channels
        widths = [base_channels * mult for mult in channel_mult]
        kind = PureSpikingResBlock if pure else SpikingResBlock
        attends = attention_levels(self.config)

        def res_block(before: int, width: int, attended: bool = False) -> nn.Module:
            block = kind(before, width, time_channels, conv, spiking)
            if not attended:
                return block
            # `initialize` draws attention weights last, so the others equal those of a network without attention.
            with torch.random.fork_rng(devices=[]):
                return AttendedBlock(block, SpikingSelfAttention(width, conv, spiking))

        # 1. time, and class
        self.time_embedding = TimeEmbedding(num_train_timesteps, base_channels)
        self.class_embedding = None if num_classes is None else ClassEmbedding(num_classes, time_channels)
        # 2. encode
        self.encoder = SpikingEncoder(in_channels * patch, base_channels, T, conv, spiking)
        # 3. down; every output is a skip connection
        skips = [base_channels]
        self.down = Levels()
        for i, (before, width) in enumerate(pairwise([base_channels, *widths])):
            blocks = [res_block(before if j == 0 else width, width, attends[i]) for j in range(num_res_blocks)]
            last = i == len(widths) - 1
            self.down.append(Level(blocks, None if last else SpikingDownsample(width, conv, spiking)))
            skips += [width] * (num_res_blocks if last else num_res_blocks + 1)
        # 4. middle
        self.middle = nn.ModuleList([res_block(widths[-1], widths[-1]) for _ in range(2)])
        # 5. up; every block takes a skip connection
        self.up = Levels()
        current = widths[-1]
        for i, width in reversed(list(enumerate(widths))):
            blocks = []
            for _ in range(num_res_blocks + 1):
                blocks.append(res_block(current + skips.pop(), width, attends[i]))
                current = width
            factors = (2, 2) if dims == 2 else (1, 2)
            self.up.append(Level(blocks, SpikingUpsample(width, conv, spiking, factors) if i > 0 else None))
        # 6. read out
        ends = (base_channels * channel_mult[0], out_channels * patch)
        if synaptic_currents:
            self.readout = CurrentReadout(*ends, conv, spiking)
        elif pure:
            self.readout = PureSpikingReadout(*ends, readout_decay, conv, spiking)
        else:
            self.readout = SpikingReadout(*ends, readout_decay, conv)
        with torch.random.fork_rng(devices=[]):  # all other weights equal those of a network without it
            self.skip = InputSkip(in_channels, time_channels) if input_skip else None

        initialize(self)
        if not quantized:
            apply_thresholds(self, v_threshold)
        self._neurons = dict.fromkeys(spiking_neurons(self), dynamics)  # layers from the configuration

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | int,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> SpikingUNet2DOutput | tuple[Tensor]:
        """Predict the noise (or v) of x_t.

        Args:
            sample: x_t [B, in_channels, H, W] (or [B, in_channels, L]), nominally unit variance at large t; with
                synaptic_currents also the currents [T, B, in_channels, H, W], in which case the output has this shape
                too.
            timestep: diffusion steps, a number or a LongTensor [] or [B], 0 <= t < num_train_timesteps.
            class_labels: LongTensor [B] of 0 to num_classes - 1, or num_classes for no class; None for no class.
            return_dict: whether to return a `SpikingUNet2DOutput` or a 1-tuple.

        Raises:
            UserError: a sample with the wrong number of channels or with a size that the levels cannot halve; classes
                for an unconditional model; steps or classes that the model does not have, if they are on the CPU.
        """
        image = first_step(self.config, sample)
        check_sample(self.config, image.shape)
        labels = labels_for(self.config, class_labels, image)
        # 1. time, and class
        t = steps_for(self.config, timestep, len(image)).to(sample.device)
        emb = self.embed(t, labels)
        # 2. encode
        h = self.encoder(to_patches(sample, self.config["patch_size"]))
        # 3. down
        skips = [h]
        for level in self.down:
            for block in level.blocks:
                h = level.evaluate(block, h, emb)
                skips.append(h)
            if level.resample is not None:
                h = level.resample(h)
                skips.append(h)
        # 4. middle
        for block in self.middle:
            h = block(h, emb)
        # 5. up
        for level in self.up:
            for block in level.blocks:
                h = level.evaluate(block, h, emb, skips.pop())
            if level.resample is not None:
                h = level.resample(h)
        # 6. read out
        out = from_patches(self.readout(h), self.config["patch_size"], self.config["dims"])
        if self.config["synaptic_currents"] and sample.ndim == 4:
            out = out.mean(0)
        if self.skip is not None:
            out = out + self.skip(sample, emb)
        return SpikingUNet2DOutput(sample=out) if return_dict else (out,)

    def embed(self, t: Tensor, labels: Tensor | None) -> Tensor:
        """The embedding [B, time_channels] of diffusion steps and classes, both LongTensor [B]."""
        emb = self.time_embedding(t)
        return emb if self.class_embedding is None else emb + self.class_embedding(labels)

    def enable_gradient_checkpointing(self, levels: Iterable[int] | None = None) -> None:  # type: ignore[override]
        """Keep fewer activations for the backward pass, which then recomputes the blocks of these levels.

        Gradients and running statistics are bit-identical. `disable_gradient_checkpointing()` turns it off.

        Args:
            levels: numbered from 0, the full resolution, which uses most of the memory; None for all.

        Raises:
            UserError: a level that the network does not have.
        """
        count = len(self.down)
        chosen = set(range(count) if levels is None else levels)
        if not chosen <= set(range(count)):
            raise UserError(f"gradient checkpointing: this network has levels 0 to {count - 1}, got {sorted(chosen)}")
        for i, (down, up) in enumerate(zip(self.down, reversed(list(self.up)), strict=True)):
            down.gradient_checkpointing = up.gradient_checkpointing = i in chosen

    def neurons(self) -> dict[str, SpikingNeuron]:
        """The layers of spiking neurons by name, in the order of the network."""
        return spiking_neurons(self)

    def foreign_neurons(self) -> dict[str, nn.Module | None]:
        """The modules in the place of neurons that differ from the configuration, by name: a subclass, another module
        or a neuron with other dynamics. The configuration cannot build them again."""
        present = dict(self.named_modules())
        found = {name: present.get(name) for name in self._neurons}
        return {
            name: neuron
            for name, neuron in found.items()
            if type(neuron) is not SpikingNeuron or neuron.dynamics != self._neurons[name]
        }

    def save_config(self, *args: Any, **kwargs: Any) -> None:
        """As in diffusers. Raises `UserError` for neurons that were inserted by hand and for a folded time embedding:
        loading would not restore them."""
        if not isinstance(self.time_embedding, TimeEmbedding):
            raise UserError("a model whose time embedding is folded cannot be saved: save the model before fold_time")
        if foreign := self.foreign_neurons():
            name, neuron = next(iter(foreign.items()))
            raise UserError(
                f"this model cannot be saved: {name} is a {type(neuron).__name__} that its config does not describe; "
                "give "
                "the neuron a name with sddpm.register_neuron and build the model with it"
            )
        super().save_config(*args, **kwargs)

    @classmethod
    def from_config(cls, config: Any, *args: Any, **kwargs: Any):
        """As in diffusers. Raises `UserError` for a neuron or surrogate that is not registered."""
        if isinstance(config, Mapping):
            check_registered(config)
        return super().from_config(config, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        *,
        subfolder: str | None = None,
        output_loading_info: bool = False,
        **kwargs: Any,
    ):
        """As in diffusers, and also loads the network of a whole model on this machine: the name of one that comes with
        the package, a saved model, or a run; `subfolder` is then "unet". Raises `UserError` as `from_config` does, for
        weights of another neuron than the config's, and if there is no such model."""
        place = Path(pretrained_model_name_or_path)
        if not (place / (subfolder or "") / "config.json").is_file():
            if (found := find_model(place)) is not None:
                place, subfolder = found, subfolder or "unet"
            elif not place.exists() and len(place.parts) != 2:  # diffusers downloads user/model
                raise no_model(place)
        loaded: Any = super().from_pretrained(str(place), subfolder=subfolder, output_loading_info=True, **kwargs)
        model, found = loaded
        neurons = model.neurons()
        if surplus := [key for key in found["unexpected_keys"] if key.rpartition(".")[0] in neurons]:
            name = model.config["neuron"]
            raise UserError(f"the weights hold {surplus[0]}, which neuron {name!r} of the config does not learn")
        return (model, found) if output_loading_info else model

    def set_v_threshold(self, thresholds: Thresholds, pattern: str = "*") -> None:
        """Change firing thresholds permanently: a number for the layers that match `pattern`, or {pattern: number}.

        "0.9x" is 0.9 times a layer's current threshold. The change is part of the configuration and is saved with the
        model. Raises `UserError`.
        """
        apply_thresholds(self, thresholds if isinstance(thresholds, Mapping) else {pattern: thresholds})
        values = {name: neuron.v_threshold for name, neuron in self.neurons().items()}
        same = len(set(values.values())) == 1
        self.register_to_config(v_threshold=next(iter(values.values())) if same else values)

    def at_threshold(self, thresholds: Thresholds | None) -> AbstractContextManager[None]:
        """Use other firing thresholds inside a `with` block; None changes nothing. Raises `UserError`."""
        return at_threshold(self, thresholds)
