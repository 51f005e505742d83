"""The schema of a training run: the keys of a YAML file in `configs/`, with types, limits and meanings."""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from sddpm.data.config import DataConfig as DataConfig
from sddpm.diffusion.density import DENSITIES
from sddpm.models import ANNUNet2DModel, SpikingUNet2DModel
from sddpm.neurons import NEURONS, SURROGATES, Option
from sddpm.neurons.quantized import MOST_LEVELS
from sddpm.registry import missing


class Section(BaseModel):
    """A part of the config: unknown keys are errors, values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


STRICTLY_ABOVE_1 = 1.0 + 2.0**-23  # the next float32: h >= this is h > 1


def registered(parts: Mapping[str, Any], kind: str) -> AfterValidator:
    """Accepts the names in a registry at the time when a config is read."""

    def check(name: str) -> str:
        if name not in parts:
            raise PydanticCustomError("registry", "{problem}", {"problem": missing(parts, kind, name)})
        return name

    return AfterValidator(check)


def argument(model: type, name: str, **about: Any) -> Any:
    """A field that takes its default from an argument of a model, so that the default is written only once."""
    return Field(default=inspect.signature(model.__init__).parameters[name].default, **about)


spiking = partial(argument, SpikingUNet2DModel)
ann = partial(argument, ANNUNet2DModel)
NeuronName = Annotated[str, registered(NEURONS, "neuron")]
SurrogateName = Annotated[str, registered(SURROGATES, "surrogate")]
NEURON = f"Neuron: {', '.join(NEURONS)}, or a name added with sddpm.register_neuron"
SURROGATE = (
    f"Surrogate of the spike's derivative: {', '.join(SURROGATES)}, or a name added with sddpm.register_surrogate"
)
Decay = Annotated[float, Field(ge=0, lt=1)]
DensityName = Annotated[str, registered(DENSITIES, "density")]
DENSITY = (
    f"Density of the noise levels in training: {', '.join(DENSITIES)}, or a name added with sddpm.register_density"
)
FiringRate = Annotated[float, Field(ge=0, le=1)]  # spikes per neuron and SNN time step
RelativeWidth = Annotated[float, Field(gt=0, le=0.2886)]  # sigma_rel of a power-function average


KIND = (
    "Network: spiking, ann (without spikes), quantized (the spiking network's wiring with quantised activations) or"
    " fsddim (only spikes, also between diffusion steps)"
)


class ModelSection(Section):
    """A network, by its kind. All kinds have `neuron`, `T`, `dims`, `num_classes`, `temporal_modulation` and
    `synaptic_currents`."""

    network: ClassVar[type]

    def arguments(self) -> dict[str, Any]:
        """The network's arguments in this section (sizes and channels of images come from the data)."""
        names = inspect.signature(self.network.__init__).parameters
        return {name: getattr(self, name) for name in names if hasattr(self, name)}


class SpikingConfig(ModelSection):
    """The spiking U-Net: the arguments of `SpikingUNet2DModel`."""

    network: ClassVar[type] = SpikingUNet2DModel
    synaptic_currents: ClassVar[bool] = False

    kind: Literal["spiking"] = Field(default="spiking", description=KIND)
    base_channels: int = spiking("base_channels", gt=0, description="Channels of the first level")
    channel_mult: tuple[int, ...] = spiking("channel_mult", description="Channels of each level, times base_channels")
    num_res_blocks: int = spiking(
        "num_res_blocks", gt=0, description="Residual blocks per level (one more on the way up)"
    )
    T: int = spiking("T", gt=0, description="SNN time steps of one network evaluation")
    neuron: NeuronName = spiking("neuron", description=NEURON)
    neuron_options: dict[str, Option] | None = spiking(
        "neuron_options", description="Further options of a registered neuron, by name; null: its defaults"
    )
    v_threshold: float | dict[str, float] = spiking(
        "v_threshold", description="Firing threshold, or one per layer name pattern"
    )
    v_reset: float | None = spiking(
        "v_reset", description="Membrane after a spike; null: soft reset (subtract the threshold)"
    )
    initial_charge: float = spiking(
        "initial_charge", description="Initial membrane, in units of the threshold; 0.5 after a conversion from an ANN"
    )
    signed_spikes: bool = spiking("signed_spikes", description="Neurons may also emit -1 (if with soft reset)")
    tau: float = spiking("tau", description="Membrane time constant of lif, start value of plif, in SNN time steps")
    decay_input: bool = spiking("decay_input", description="lif, plif: also divide the input by tau")
    detach_reset: bool = spiking("detach_reset", description="Keep gradients out of the reset")
    surrogate: SurrogateName = spiking("surrogate", description=SURROGATE)
    surrogate_alpha: float | None = spiking(
        "surrogate_alpha", description="Inverse width of the surrogate; null: its default"
    )
    temporal_modulation: bool = spiking(
        "temporal_modulation", description="TSM: a learned scale per convolution and SNN time step"
    )
    readout_decay: float = spiking("readout_decay", description="Decay per SNN time step of the membrane readout")
    patch_size: int = spiking(
        "patch_size",
        gt=0,
        description="Side in pixels of patches that are folded into channels; larger is cheaper",
    )
    pure: bool = spiking("pure", description="Every convolution but the first receives spikes")
    attention_resolutions: tuple[int, ...] = spiking(
        "attention_resolutions", description="Heights of feature maps at which blocks have spiking self-attention"
    )
    dims: int = spiking("dims", ge=1, le=2, description="2: images; 1: signals [C, L]")
    num_classes: int | None = spiking(
        "num_classes", gt=0, description="Classes of the data to learn; null: none, unconditional"
    )
    input_skip: bool = spiking(
        "input_skip", description="Add x_t to the prediction, times a learned gain: a linear path around the spikes"
    )


class AnnConfig(ModelSection):
    """The network without spikes: the arguments of `ANNUNet2DModel`."""

    network: ClassVar[type] = ANNUNet2DModel
    neuron: ClassVar[str | None] = None
    T: ClassVar[int] = 1
    dims: ClassVar[int] = 2
    temporal_modulation: ClassVar[bool] = False
    synaptic_currents: ClassVar[bool] = False

    kind: Literal["ann"] = Field(default="ann", description=KIND)
    base_channels: int = ann("base_channels", gt=0, description="Channels of the first level")
    channel_mult: tuple[int, ...] = ann("channel_mult", description="Channels of each level, times base_channels")
    num_res_blocks: int = ann("num_res_blocks", gt=0, description="Residual blocks per level (one more on the way up)")
    attention_resolutions: tuple[int, ...] = ann(
        "attention_resolutions", description="Heights of feature maps at which blocks have attention"
    )
    middle_attention: bool = ann("middle_attention", description="Attention between the two middle blocks")
    patch_size: int = ann(
        "patch_size",
        gt=0,
        description="Side in pixels of patches that are folded into channels; larger is cheaper",
    )
    num_classes: int | None = ann(
        "num_classes", gt=0, description="Classes of the data to learn; null: none, unconditional"
    )


class QuantizedConfig(ModelSection):
    """The spiking U-Net's pure wiring with quantised ReLUs instead of neurons, for later conversion to spikes."""

    network: ClassVar[type] = SpikingUNet2DModel
    neuron: ClassVar[str] = "quantized_relu"
    T: ClassVar[int] = 1
    pure: ClassVar[bool] = True
    dims: ClassVar[int] = 2
    temporal_modulation: ClassVar[bool] = False
    synaptic_currents: ClassVar[bool] = False

    kind: Literal["quantized"] = Field(default="quantized", description=KIND)
    base_channels: int = spiking("base_channels", gt=0, description="Channels of the first level")
    channel_mult: tuple[int, ...] = spiking("channel_mult", description="Channels of each level, times base_channels")
    num_res_blocks: int = spiking(
        "num_res_blocks", gt=0, description="Residual blocks per level (one more on the way up)"
    )
    activation_bits: int = spiking(
        "activation_bits", ge=1, le=8, description="Bits per activation; after conversion T = 2^bits - 1 time steps"
    )
    activation_levels: int | None = spiking(
        "activation_levels",
        ge=1,
        le=MOST_LEVELS,
        description="Levels above 0 per activation, and T after conversion; null: 2^bits - 1",
    )
    patch_size: int = spiking(
        "patch_size",
        gt=0,
        description="Side in pixels of patches that are folded into channels; larger is cheaper",
    )
    num_classes: int | None = spiking(
        "num_classes", gt=0, description="Classes of the data to learn; null: none, unconditional"
    )
    input_skip: bool = spiking(
        "input_skip", description="Add x_t to the prediction, times a learned gain: a linear path around the spikes"
    )


class FsddimConfig(SpikingConfig):
    """The spiking U-Net on synaptic currents, with FSDDIM's neuron (arXiv 2312.01742) by default."""

    synaptic_currents: ClassVar[bool] = True

    kind: Literal["fsddim"] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="fsddim", description=KIND
    )
    neuron: NeuronName = Field(default="lif", description=NEURON)
    v_threshold: float | dict[str, float] = Field(
        default=STRICTLY_ABOVE_1, description="Firing threshold, or one per layer name pattern"
    )
    tau: float = Field(default=5.0, description="Membrane time constant in SNN time steps: decay 1 - 1/tau = 0.8")
    decay_input: bool = Field(default=False, description="lif, plif: also divide the input by tau")
    detach_reset: bool = Field(default=True, description="Keep gradients out of the reset")
    surrogate: SurrogateName = Field(default="triangle", description=SURROGATE)
    surrogate_alpha: float | None = Field(default=2.0, description="Inverse width of the surrogate; null: its default")
    pure: bool = Field(default=True, description="Every convolution but the first receives spikes; must be true")


KINDS: dict[str, type[ModelSection]] = {
    "spiking": SpikingConfig,
    "ann": AnnConfig,
    "quantized": QuantizedConfig,
    "fsddim": FsddimConfig,
}


def _kind(section: Any) -> str:
    """The kind of a model section; "spiking" by default."""
    kind = section.get("kind") if isinstance(section, Mapping) else getattr(section, "kind", None)
    return kind if isinstance(kind, str) and kind in KINDS else "spiking"


ModelConfig = Annotated[
    Annotated[SpikingConfig, Tag("spiking")]
    | Annotated[AnnConfig, Tag("ann")]
    | Annotated[QuantizedConfig, Tag("quantized")]
    | Annotated[FsddimConfig, Tag("fsddim")],
    Discriminator(_kind),
]


class DiffusionConfig(Section):
    """The forward process and what the network predicts."""

    num_train_timesteps: int = Field(default=1000, gt=0, description="Noising steps")
    beta_schedule: Literal["linear", "cosine"] = Field(default="linear", description="Noise schedule: linear or cosine")
    beta_start: float = Field(default=1e-4, description="Linear schedule: variance of the first step")
    beta_end: float = Field(default=0.02, description="Linear schedule: variance of the last step")
    prediction_type: Literal["epsilon", "v_prediction"] = Field(
        default="epsilon", description="epsilon or v_prediction"
    )
    min_snr_gamma: float | None = Field(
        default=None, gt=0, description="Cap of min-SNR loss weights, e.g. 5; null: no weights"
    )
    density: DensityName = Field(default="uniform", description=DENSITY)
    density_mean: float | None = Field(
        default=None, description="log-normal: mean of log sigma, sigma^2 = (1 - a) / a; null: the density's own, -1.2"
    )
    density_width: float | None = Field(
        default=None, gt=0, description="log-normal: deviation of log sigma; null: the density's own, 1.2"
    )


class DistillConfig(Section):
    """Distillation to few evaluations: the student learns to do in one step what `train.teacher` does in several.

    Without this section a config trains normally; `sddpm distill` writes it."""

    evaluations: int = Field(default=4, gt=0, description="Network evaluations per sample of the student, 1 or more")
    grid: Literal["uniform", "log-snr", "angle"] = Field(
        default="log-snr", description="Spacing of the student's time steps: uniform (in t), log-snr or angle"
    )
    substeps: int = Field(default=4, gt=0, description="Steps of the teacher per student step")
    order: Literal[1, 2] = Field(
        default=2, description="Order of the teacher's solver: 1 (DDIM) or 2 (DPM-Solver++(2M))"
    )
    x0_scale: float = Field(default=1.0, gt=0, description="Factor of the clean image that the teacher predicts")
    guidance_scale: float = Field(
        default=1.0, ge=0, description="Classifier-free guidance scale of the teacher; 1: as trained"
    )


class TrainConfig(Section):
    """The optimisation, and the outputs written during training."""

    steps: int = Field(default=500_000, gt=0, description="Optimiser steps in total")
    batch_size: int = Field(
        default=128, gt=0, description="Images per optimiser step, over all processes and accumulation"
    )
    accumulation: int = Field(
        default=1, gt=0, description="Micro-batches per step and process: less memory, same batch_size"
    )
    optimizer: Literal["adam", "adamw", "muon"] = Field(
        default="adam",
        description="adam, adamw or muon (for all convolutions but the first and last; adamw for the rest)",
    )
    lr: float = Field(
        default=2e-4, gt=0, description="Learning rate after the warm-up (also for muon, which scales it)"
    )
    modulation_lr: float | None = Field(
        default=None, gt=0, description="Learning rate of TSM's scales after the warm-up; null: lr, as for all weights"
    )
    lr_schedule: Literal["constant", "cosine", "linear"] = Field(
        default="constant", description="Learning rate after the warm-up: constant, or decaying to 0 at the last step"
    )
    warmup_steps: int = Field(
        default=5000, ge=0, description="Steps over which the learning rate rises linearly from 0"
    )
    betas: tuple[Decay, Decay] = Field(
        default=(0.9, 0.999), description="Adam's decay of the gradient and of its square"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="Weight decay (decoupled for adamw)")
    max_grad_norm: float = Field(default=1.0, ge=0, description="Clip the norm of the gradient to this; 0: never")
    rate_penalty: float = Field(
        default=0.0, ge=0, description="Weight of the penalty on firing rates above rate_target; 0: no penalty"
    )
    rate_target: FiringRate | dict[str, FiringRate] = Field(
        default=0.1, description="Firing rate, 0 to 1, above which neurons are penalised, or one per layer name pattern"
    )
    teacher: str | None = Field(
        default=None, description="A model or run whose predictions are also learned (distillation); null: none"
    )
    teacher_weight: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the distance to the teacher in the loss; the rest is the loss on the data",
    )
    assign_noise: bool = Field(
        default=False, description="Pair each image of a micro-batch with near noise (needs scipy)"
    )
    label_dropout: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of images that are trained without their class, if there are classes",
    )
    ema_decay: float = Field(
        default=0.9999, ge=0, lt=1, description="Decay of the averaged weights (EMA), which are saved; 0: off"
    )
    ema_power: tuple[RelativeWidth, ...] | None = Field(
        default=None,
        min_length=1,
        description="Relative widths of the averages for `sddpm ema`, e.g. [0.05, 0.1]; null: none",
    )
    ema_snapshot_every: int = Field(default=5000, gt=0, description="Steps between snapshots of these averages")
    precision: Literal["float32", "bf16", "float64"] = Field(
        default="float32",
        description="Arithmetic: float32, bf16 (autocast; weights stay float32) or float64 (for checks)",
    )
    compile: bool = Field(
        default=False,
        description="Compile the network with torch.compile: minutes at the start, then faster steps on GPUs",
    )
    channels_last: bool = Field(default=True, description="Memory layout with channels innermost: faster convolutions")
    sync_batch_norm: bool = Field(default=True, description="Several processes: batch-norm statistics over all of them")
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="Seed of initial weights, order of images, noise, time steps and flips"
    )
    log_every: int = Field(default=50, gt=0, description="Steps between lines of metrics.jsonl")
    sample_every: int = Field(default=5000, ge=0, description="Steps between sample grids; 0: none")
    sample_count: int = Field(default=16, gt=0, description="Images of a sample grid")
    sample_steps: int = Field(default=50, gt=0, description="DDIM steps of a sample grid")
    checkpoint_every: int = Field(default=5000, gt=0, description="Steps between checkpoints (also at the last step)")
    keep_checkpoints: int = Field(default=2, gt=0, description="Number of newest checkpoints to keep")
    tensorboard: bool = Field(default=True, description="Also write tensorboard files, if tensorboard is installed")


class Config(Section):
    """One training run."""

    data: DataConfig = Field(default_factory=DataConfig, description="Images to train on")
    model: ModelConfig = Field(default_factory=SpikingConfig, description="The network")
    diffusion: DiffusionConfig = Field(default_factory=DiffusionConfig, description="Noise schedule and objective")
    train: TrainConfig = Field(default_factory=TrainConfig, description="The optimisation")
    distill: DistillConfig | None = Field(default=None, description="Distillation to few evaluations; null: off")

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.train.modulation_lr is not None and not self.model.temporal_modulation:
            raise PydanticCustomError("modulation_lr", "train.modulation_lr needs model.temporal_modulation=true")
        if self.train.compile and self.train.rate_penalty:
            raise PydanticCustomError("compile", "train.compile cannot measure firing rates: set train.rate_penalty=0")
        if self.distill is not None and (problem := self._distill_problem(self.distill)):
            raise PydanticCustomError("distill", "{problem}", {"problem": problem})
        return self

    def _distill_problem(self, distill: DistillConfig) -> str | None:
        """Why this config cannot distill, or None if it can."""
        if self.train.teacher is None:
            return "distill needs train.teacher, the model to distill"
        if self.diffusion.prediction_type != "v_prediction":
            return "distill needs diffusion.prediction_type=v_prediction: a student of few evaluations predicts v"
        if self.model.synaptic_currents:
            return "distill needs a network of images: model.kind fsddim denoises synaptic currents"
        if self.train.teacher_weight != 1:
            return "distill learns only from the teacher: set train.teacher_weight=1"
        if self.diffusion.density != "uniform":
            return "distill trains only at its own time steps: set diffusion.density=uniform"
        if self.diffusion.min_snr_gamma is not None:
            return "distill weights its time steps equally: set diffusion.min_snr_gamma=null"
        if distill.guidance_scale != 1 and self.model.num_classes is None:
            return "distill.guidance_scale needs model.num_classes: it guides towards a class"
        return None

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values for YAML and JSON; absent sections are left out."""
        return {section: keys for section, keys in self.model_dump(mode="json").items() if keys is not None}


# Keys that may differ between a run and its resumption: they do not change the weights at any step, except train.steps
# where the learning rate decays over all steps.
HARMLESS = frozenset(
    {
        "data.path",
        "data.download",
        "train.compile",
        "train.steps",
        "train.log_every",
        "train.sample_every",
        "train.sample_count",
        "train.sample_steps",
        "train.checkpoint_every",
        "train.keep_checkpoints",
        "train.tensorboard",
    }
)
