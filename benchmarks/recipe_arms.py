"""The arms that benchmarks/recipe.py compares: a table for each question, and its metric."""

from dataclasses import dataclass

BASE = (
    "train.ema_decay=0.995",
    "train.warmup_steps=30",
    "train.sample_every=0",
    "train.checkpoint_every=100000",
    "train.log_every=10",
    "train.tensorboard=false",
)


@dataclass(frozen=True)
class Stage:
    """A training: overrides, and its share of the arm's compute. start: "" for random weights, "weights" of the
    previous stage, "converted" for its spiking form at T = 4; taught: whether the network of the previous stage is the
    teacher; renormed: whether to recompute the batch-norm statistics for the averaged weights; warmup: the share of
    steps over which the learning rate rises, None for the number in the config."""

    overrides: tuple[str, ...] = ()
    share: float = 1.0
    start: str = ""
    taught: bool = False
    renormed: bool = False
    warmup: float | None = None


Arms = dict[str, tuple[Stage, ...]]


@dataclass(frozen=True)
class Table:
    """Arms that are compared with one another.

    config, base: the common start of all arms. metric: the deciding metric, "fad" or "kid", lower is better. against:
    the baseline arm, relative to which the others are given.
    """

    config: str
    base: tuple[str, ...]
    metric: str
    against: str
    arms: Arms


def arm(*overrides: str, warmup: float | None = None) -> tuple[Stage, ...]:
    return (Stage(overrides, warmup=warmup),)


QUANTIZED = ("model.kind=quantized", "train.lr=1.5e-3")
GENTLY = "train.lr=5e-4"
FASHION: Arms = {
    "as it is": arm(),
    "pure wiring": arm("model.pure=true"),
    "soft reset": arm("model.v_reset=null"),
    "detached reset": arm("model.detach_reset=true"),
    "LIF": arm("model.neuron=lif"),
    "PLIF": arm("model.neuron=plif"),
    "sigmoid surrogate": arm("model.surrogate=sigmoid"),
    "atan, alpha 1": arm("model.surrogate_alpha=1"),
    "atan, alpha 4": arm("model.surrogate_alpha=4"),
    "readout decay 1": arm("model.readout_decay=1"),
    "TSM": arm("model.temporal_modulation=true"),
    "in two stages": (Stage((), 0.7), Stage((GENTLY,), 0.3, "weights")),
    "in two stages, TSM in the second": (
        Stage((), 0.7),
        Stage((GENTLY, "model.temporal_modulation=true"), 0.3, "weights"),
    ),
    "batch norms measured anew": (Stage(renormed=True),),
    "EMA 0.9": arm("train.ema_decay=0.9"),  # its warm-up keeps any decay below 0.98 for the first 432 steps
    "no EMA": arm("train.ema_decay=0"),
    "lr 5e-4": arm("train.lr=5e-4"),
    "lr 2e-3": arm("train.lr=2e-3"),
    "warm-up of 150 steps": arm("train.warmup_steps=150"),
    "batch 32": arm("train.batch_size=32"),
    "batch 128": arm("train.batch_size=128"),
    "epsilon": arm("diffusion.prediction_type=epsilon"),
    "min-SNR 5": arm("diffusion.min_snr_gamma=5"),
    "cosine schedule": arm("diffusion.beta_schedule=cosine"),
    "T = 2 throughout": arm("model.T=2"),
    "T = 8 throughout": arm("model.T=8"),
    "T = 1, then 4": (Stage(("model.T=1",), 0.5), Stage((GENTLY,), 0.5, "weights")),
    "T = 2, then 4": (Stage(("model.T=2",), 0.5), Stage((GENTLY,), 0.5, "weights")),
    "quantised ANN, then spikes": (Stage(QUANTIZED, 0.6), Stage((GENTLY,), 0.4, "converted")),
    "quantised ANN, then spikes it teaches": (Stage(QUANTIZED, 0.6), Stage((GENTLY,), 0.4, "converted", True)),
    "taught by the ANN twin": (Stage(("model.kind=ann",), 0.3), Stage((), 0.7, taught=True)),
}

# CIFAR-10: 4.2 million parameters at 2 x 2 patches, classes, a tenth of them hidden.
COLOUR = (*BASE, "model.base_channels=64", "model.channel_mult=[1,2,2]", "model.num_classes=10")
MUON = "train.optimizer=muon"
LOG_NORMAL = {
    "log-normal": arm("diffusion.density=log-normal"),
    "log-normal, wide": arm("diffusion.density=log-normal", "diffusion.density_width=1.8"),
}
# Leg A's division of the time, and its rates.
OURS = (Stage(QUANTIZED, 2 / 3), Stage(("train.lr=6e-4",), 1 / 3, "converted"))


def paper(batch: int, rate: str, *overrides: str) -> tuple[Stage, ...]:
    """SDDPM's own recipe: spikes from the start, IF with hard reset in the published wiring, epsilon, Adam with a
    constant learning rate, a warm-up of 5 % of the steps."""
    return arm(
        "diffusion.prediction_type=epsilon",
        "train.optimizer=adam",
        "train.betas=[0.9,0.999]",
        "train.weight_decay=0",
        "train.lr_schedule=constant",
        f"train.batch_size={batch}",
        f"train.lr={rate}",
        *overrides,
        warmup=0.05,
    )


TABLES = {
    "fashion-mnist": Table("fashion_mnist_small", BASE, "fad", "as it is", FASHION),
    "cifar10": Table(
        "cifar10_small",
        (*COLOUR, *QUANTIZED),
        "kid",
        "as it is",
        {
            "as it is": arm(),
            "input skip": arm("model.input_skip=true"),
            "input skip, Muon": arm("model.input_skip=true", MUON),
            "Muon": arm(MUON),
            "Muon, lr 3e-3": arm(MUON, "train.lr=3e-3"),
            **LOG_NORMAL,
            "cosine schedule": arm("diffusion.beta_schedule=cosine"),
            "noise assigned": arm("train.assign_noise=true"),
            "batch 32": arm("train.batch_size=32"),
            "epsilon": arm("diffusion.prediction_type=epsilon"),
        },
    ),
    # As many short runs for the ANN as for the spiking network.
    "cifar10-twin": Table(
        "cifar10_small",
        (*COLOUR, "model.kind=ann", "train.lr=1e-3"),
        "kid",
        "as it is",
        {
            "as it is": arm(),
            "lr 5e-4": arm("train.lr=5e-4"),
            "lr 2e-3": arm("train.lr=2e-3"),
            "lr 4e-3": arm("train.lr=4e-3"),
            "Muon": arm(MUON),
            "Muon, lr 2e-3": arm(MUON, "train.lr=2e-3"),
            **LOG_NORMAL,
            "batch 32": arm("train.batch_size=32"),
        },
    ),
    "cifar10-paper": Table(
        "cifar10_small",
        COLOUR,
        "kid",
        "batch 128, lr 2e-4",
        {
            **{
                f"batch {batch}, lr {rate}": paper(batch, rate)
                for batch in (128, 32)
                for rate in ("2e-4", "5e-4", "1e-3")
            },
            "batch 128, lr 2e-4, v": paper(128, "2e-4", "diffusion.prediction_type=v_prediction"),
            "ours": OURS,
        },
    ),
    # With two hours per arm.
    "cifar10-size": Table(
        "cifar10_small",
        (*COLOUR, *QUANTIZED, "train.ema_decay=0.999", "train.warmup_steps=200", "train.checkpoint_every=500"),
        "kid",
        "64 channels, one block",
        {
            "64 channels, one block": arm(),
            "64 channels, one block, [1,2,4]": arm("model.channel_mult=[1,2,4]"),
            "64 channels, two blocks": arm("model.num_res_blocks=2"),
            "48 channels, two blocks": arm("model.base_channels=48", "model.num_res_blocks=2"),
            "48 channels, two blocks, [1,2,4]": arm(
                "model.base_channels=48", "model.num_res_blocks=2", "model.channel_mult=[1,2,4]"
            ),
        },
    ),
}
