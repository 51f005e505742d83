"""Samples pictures from FILE.nir, written by `sddpm export MODEL FILE.nir`, with spikingjelly's reader of NIR.

    python examples/nir_sample.py FILE.nir OUT.png [--count 8] [--steps N] [--class 3]

Needs numpy, torch, nir, nirtorch, spikingjelly and pillow, and nothing of sddpm. Uses DDIM and gives the pictures of
`sddpm sample MODEL --solver ddim --steps N` with the same seeds, except for spikes that flip by rounding.
"""

import argparse
import json
import math
import sys
from typing import Any

import nir
import numpy as np
import torch
from PIL import Image
from spikingjelly.activation_based import nir_exchange


def alphas_cumprod(num_train_timesteps: int, beta_schedule: str, beta_start: float, beta_end: float) -> np.ndarray:
    """Fraction of the signal's variance that remains after each of the N noising steps."""
    betas = np.linspace(beta_start, beta_end, num_train_timesteps)
    if beta_schedule == "cosine":
        bar = np.cos((np.arange(num_train_timesteps + 1) / num_train_timesteps + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    return np.cumprod(1 - betas)


def time_steps(data: dict[str, Any], wanted: int | None) -> list[int]:
    """The decreasing time steps of the evaluations: those stored with the model, if there are so many or no number is
    wanted, else even ones. A distilled model has no others."""
    kept, N = data["scheduler_config"].get("timesteps"), data["schedule"]["num_train_timesteps"]
    if kept is not None and wanted in (None, len(kept)):
        return kept
    if data["scheduler_config"].get("distilled"):
        print(f"error: this model was distilled to {len(kept)} evaluations: leave out --steps", file=sys.stderr)
        raise SystemExit(2)
    n = 20 if wanted is None else wanted
    return [(2 * N * (n - i) + n) // (2 * n) - 1 for i in range(n)]


def text(value: object) -> str:
    """A string of the metadata: readers return it as text or as bytes in an array."""
    return value if isinstance(value, str) else np.asarray(value).item().decode()


class Network:
    """The network of a file, over T time steps from empty membranes. label: of all pictures, None for no class."""

    def __init__(self, file: str):
        metadata = nir.read(file).metadata
        self.facts = json.loads(text(metadata["sddpm"]))
        self.patch, self.channels = self.facts["config"]["patch_size"], self.facts["config"]["in_channels"]
        self.time = torch.from_numpy(np.array(metadata["time_embedding"]))
        self.classes = metadata.get("class_embedding")
        self.graph = nir_exchange.import_from_nir(file, dt=self.facts["dt"])

    @torch.no_grad()
    def __call__(self, x: torch.Tensor, t: int, label: int | None) -> torch.Tensor:
        embedding = self.time[t]
        if self.classes is not None:
            embedding = embedding + torch.from_numpy(np.array(self.classes))[-1 if label is None else label]
        patches = torch.nn.functional.pixel_unshuffle(x, self.patch)
        maps = torch.nn.functional.silu(embedding)[None, :, None, None].expand(len(x), -1, *patches.shape[2:])
        given, state, membrane = torch.cat([patches, maps], 1), None, 0.0
        for _ in range(self.facts["T"]):
            current, state = self.graph(given, state)
            membrane = self.facts["readout_decay"] * membrane + current
        return torch.nn.functional.pixel_shuffle(membrane, self.patch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--steps", type=int, help="evaluations; default: the time steps of the model, else 20")
    parser.add_argument("--class", type=int, dest="label", help="for a model with classes")
    args = parser.parse_args()

    network = Network(args.model)
    data = network.facts
    a, steps = alphas_cumprod(**data["schedule"]), time_steps(data, args.steps)
    shape = (network.channels, data["config"]["sample_size"], data["config"]["sample_size"])
    x = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(args.count)])
    for t, following in zip(steps, [*steps[1:], None], strict=True):
        predicted = network(x, t, args.label)
        signal, spread = a[t] ** 0.5, (1 - a[t]) ** 0.5
        if data["prediction_type"] == "v_prediction":
            x0 = signal * x - spread * predicted
        else:
            x0 = (x - spread * predicted) / signal
        x0 = x0 * data["x0_scale"]
        x0 = x0.clip(-1, 1) if data["clip_sample"] else x0
        epsilon = (x - signal * x0) / spread
        left = 1.0 if following is None else a[following]
        x = left**0.5 * x0 + (1 - left) ** 0.5 * epsilon
    pixels = ((x.clip(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    row = np.concatenate(list(pixels), axis=-1).transpose(1, 2, 0)
    Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row).save(args.out)


if __name__ == "__main__":
    main()
