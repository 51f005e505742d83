"""Networks made from the packaged fashion-mnist: quantised, trained on, distilled; and the best x0_scale of each."""

from argparse import Namespace
from pathlib import Path

import torch
from few import Cell
from measuring import kept_json

from sddpm import load_pipeline
from sddpm.conversion.ann import receivers
from sddpm.files import atomic_path
from sddpm.models import SpikingUNet2DModel
from sddpm.training.config import Config, QuantizedConfig
from sddpm.training.history import config_path

START = "fashion-mnist"
SHARED = ("base_channels", "channel_mult", "num_res_blocks", "patch_size")
SCALES = ("1", "1.01", "1.02", "1.03", "1.05")


def quantized_from(spiking: SpikingUNet2DModel, levels: int) -> SpikingUNet2DModel:
    """The network with quantised activations of so many levels above 0 that `convert_ann` turns into this one at its
    own T, in evaluation mode. The thresholds become the learned steps."""
    own = {key: value for key, value in spiking.config.items() if not key.startswith("_")}
    plain = {"T": 1, "neuron": "quantized_relu", "v_threshold": 1.0, "activation_levels": levels}
    model = SpikingUNet2DModel(**{**own, **plain, "v_reset": None, "initial_charge": 0.0})
    weights = {name: value.clone() for name, value in spiking.state_dict().items()}
    thresholds = {name: float(neuron.v_threshold) for name, neuron in spiking.neurons().items()}
    for name, convolutions in receivers(model).items():
        weights[f"{name}.log_step"] = torch.tensor(thresholds[name]).log()
        for conv in convolutions:
            weights[f"{conv}.weight"] /= thresholds[name]
    weights["readout.conv.weight"] *= own["T"]
    weights["readout.conv.bias"] *= own["T"]
    model.load_state_dict(weights)
    return model.eval()


def start_config() -> Path:
    """The config of the packaged model."""
    found = config_path(START)
    assert found is not None  # packaged models have their config
    return found


def quantized_config(config: Config, levels: int) -> Config:
    """The config with the network of `quantized_from`."""
    shared = {key: getattr(config.model, key) for key in SHARED}
    return config.model_copy(update={"model": QuantizedConfig(activation_levels=levels, **shared)})


def saved(model: SpikingUNet2DModel, folder: Path) -> Path:
    """The model as a pipeline in a folder, in the place of an earlier one, which may be of another training."""
    pipeline = load_pipeline(START)
    pipeline.register_modules(unet=model)
    with atomic_path(folder) as temporary:
        pipeline.save_pretrained(temporary)
    return folder


def best_scale(run: Path, sampler: dict[str, str], args: Namespace) -> str:
    """The best of SCALES for a network: least KAD of 500 samples, seeds from 1,000,000 on."""
    against = ["--reference", START, "--data", args.data / START, "--split", "train", "--protocol", "fsddim"]
    against += ["--metric", "kad", "--fad-weights", args.data / "fad" / "fashion_64.pth", "--seed", 1_000_000]
    against += ["--work", args.work / "cache", "--samples", 500, "--engine", "fast", "--no-copies"]

    def kad(scale: str) -> float:
        cell = Cell(str(run), {**sampler, "x0": scale})
        kept = args.work / f"scale-{cell.name}.json"
        return kept_json(kept, "--out", "evaluate", cell.model, *against, *cell.arguments())["metrics"]["kad"]["value"]

    return min(SCALES, key=kad)
