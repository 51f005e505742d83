"""Compares a trained network with spikingjelly's version of its NIR file: spikes of one evaluation, then whole
pictures.

    python benchmarks/nir_spikes.py MODEL [--count 16] [--steps 20] [--out FILE.json]

Prints how many spikes differ over T time steps, `count` noisy pictures and a few diffusion steps, both in float32; then
the differences of the pictures of DDIM, in grey levels of 255. Needs the extra nir, nirtorch and spikingjelly.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from sddpm import load_pipeline
from sddpm.diffusion.noise import generators_for, seeded_noise
from sddpm.diffusion.solvers import switch_solver
from sddpm.export.nir_file import export_nir
from sddpm.pipelines import denoise

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from nir_sample import Network

TIMESTEPS = (999, 949, 900, 700, 500, 300, 100, 49)


class Spikes:
    """The spikes of named layers while they are recorded: {name: [T, B, ...]}."""

    def __init__(self, layers: dict[str, torch.nn.Module], steps: bool):
        self._found: dict[str, list[Tensor]] = {}
        for name, layer in layers.items():
            layer.register_forward_hook(lambda _m, _x, out, name=name: self._keep(name, out[0] if steps else out))
        self._steps = steps

    def _keep(self, name: str, out: Tensor) -> None:
        self._found.setdefault(name, []).append(out)

    def take(self) -> dict[str, Tensor]:
        found, self._found = self._found, {}
        return {name: torch.stack(each) if self._steps else each[0] for name, each in found.items()}


class Theirs(torch.nn.Module):
    """The network of the file, callable like a U-Net."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, sample: Tensor, timestep: Tensor | int) -> SimpleNamespace:
        return SimpleNamespace(sample=self.network(sample, int(torch.as_tensor(timestep).flatten()[0]), None))


def theirs_of(network: Network) -> Spikes:
    modules = network.graph.named_modules()
    return Spikes({name: m for name, m in modules if type(m).__name__ == "_NIRStatefulModule"}, steps=True)


def split(spikes: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the spikes as in the graph: a layer of neurons on a concatenation is two nodes there."""
    found = {}
    for name, value in spikes.items():
        parts = {"": value}
        if name.startswith("up.") and name.endswith("neuron1"):
            parts = dict(zip((".a", ".b"), value.chunk(2, dim=2), strict=True))
        found |= {(name + part).replace(".", "_"): each for part, each in parts.items()}
    return found


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    pipeline = load_pipeline(args.model)
    unet = pipeline.unet
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.nir"
        export_nir(pipeline, file)
        network = Network(str(file))
    size = unet.config.sample_size
    noise = seeded_noise(range(args.count), (unet.config.in_channels, size, size))
    scheduler = switch_solver(pipeline.scheduler, "ddim")
    options = {"num_inference_steps": args.steps}

    drawn = []
    for each in (unet, Theirs(network)):
        *_, last = denoise(each, scheduler, noise, generators_for(range(args.count)), **options)
        drawn.append((last.x_prev.clamp(-1, 1) + 1) * 127.5)
    away = (drawn[0] - drawn[1]).abs()

    ours, read = Spikes(dict(unet.neurons()), steps=False), theirs_of(network)
    total, rows = 0, {}
    for t in TIMESTEPS:
        a = pipeline.scheduler.alphas_cumprod[t]
        noisy = a.sqrt() * drawn[0] / 127.5 - a.sqrt() + (1 - a).sqrt() * noise
        unet(noisy, t)
        network(noisy, t, None)
        expected, found = split(ours.take()), read.take()
        assert expected.keys() == found.keys()
        for name, spikes in expected.items():
            rows[name] = rows.get(name, 0) + int((spikes != found[name]).sum())
            total += spikes.numel()
    worst = max(rows, key=lambda name: rows[name])
    result = {
        "neuron_steps": total,
        "different": sum(rows.values()),
        "worst_layer": [worst, rows[worst]],
        "layers": len(rows),
        "picture_mean_distance": away.mean().item(),
        "picture_median_distance": away.median().item(),
        "picture_largest_distance": away.max().item(),
    }
    print(json.dumps(result))
    if args.out is not None:
        args.out.write_text(json.dumps({"model": args.model} | result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
