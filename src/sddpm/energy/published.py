"""The published energies of SDDPM and of its ANN baseline, the formula behind them, and what it leaves out.

    E = 4.6 pJ x MACs(first convolution) + 0.9 pJ x sum over the other layers of rate x T x MACs

(SDDPM, section 5; SDM, arXiv 2408.16467.) It treats every layer but the first as if it received spikes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sddpm.energy.cost import CostModel, energy_of, load_cost_model
from sddpm.energy.counts import LayerCount
from sddpm.energy.coverage import macs_outside_layers
from sddpm.energy.operations import counting
from sddpm.models import ANNUNet2DModel, SpikingUNet2DModel
from sddpm.models.macs import layer_macs

MILLIJOULE = 1e9  # pJ
ANN_MJ, SDDPM_MJ = 29.23, {4: 10.97, 8: 22.96}  # CIFAR-10, one evaluation of one image; SDDPM with TSM, by T
SINUSOIDS = 1000 * 128  # of the time embedding, included in the published sizes


@dataclass(frozen=True)
class Difference:
    """A layer's energy by the published formula and by counted operations, in pJ, and the reason for the difference."""

    name: str
    published: float
    honest: float
    reason: str


def mean_rate(layers: Sequence[LayerCount]) -> float:
    """Firing rate of the inputs of the spiking layers, weighted by their MACs: the rate in the formula."""
    spiking = [layer for layer in layers if layer.binary and layer.macs]
    dense = sum(layer.dense_macs for layer in spiking)
    return sum(layer.rate * layer.dense_macs for layer in spiking) / dense if dense else 0.0


def compare(layers: Sequence[LayerCount], cost: CostModel) -> list[Difference]:
    """Each layer by the formula (with the MAC and AC of `cost`) and by its operations, largest difference first.

    A layer with real-valued input has no firing rate; the mean over the others is used in the formula.
    """
    synaptic = [layer for layer in layers if layer.kind in ("conv", "linear")]
    first = next(layer for layer in synaptic if layer.kind == "conv")
    rate = mean_rate(layers)
    differences = []
    for layer in layers:
        honest = energy_of([layer], cost).total
        if layer is first:
            published, reason = layer.dense_macs * cost.mac_pj, ""
        elif layer in synaptic:
            published = (layer.rate if layer.binary else rate) * layer.dense_macs * cost.ac_pj
            reason = "fewer synapses at borders and strides" if layer.binary else "real-valued input"
        else:
            published, reason = 0.0, "neuron updates" if layer.kind == "neuron" else "not counted"
        differences.append(Difference(layer.name, published, honest, reason))
    return sorted(differences, key=lambda d: -abs(d.honest - d.published))


@dataclass(frozen=True)
class PublishedRow:
    """A published energy of one evaluation of one image, in mJ, and the cost of its network as computed here.

    name: of the network. published: the value. rate: the firing rate that gives it in the formula (None for the ANN).
    honest: with multiply-accumulates for real-valued inputs. gmac: dense MACs of the network, in
    billions for one time step. parameters: its parameters.
    """

    name: str
    published: float
    rate: float | None
    honest: float
    gmac: float
    parameters: int


def published_ann() -> PublishedRow:
    """The U-Net of Ho et al. (2020) as in w86763777/pytorch-ddpm, with one attention block in the middle.

    67,602,691 parameters.
    """
    with torch.device("meta"):
        twin = ANNUNet2DModel()
    macs = sum(layer_macs(twin).values()) + macs_outside_layers(twin)
    parameters = sum(p.numel() for p in twin.parameters()) + SINUSOIDS
    cost = load_cost_model("45nm")
    return PublishedRow("ANN", ANN_MJ, None, macs * cost.mac_pj / MILLIJOULE, macs / 1e9, parameters)


def published_snn(T: int) -> PublishedRow:
    """SDDPM (TSM) at T = 4 or 8: the firing rate implied by its published energy, and the honest energy at that
    rate."""
    with torch.device("meta"):
        model = SpikingUNet2DModel(temporal_modulation=True, T=T)
    macs = layer_macs(model)
    cost = load_cost_model("45nm")
    real, once = real_valued_layers()
    first = macs["encoder.conv1"] * cost.mac_pj
    others = sum(macs.values()) - macs["encoder.conv1"]
    rate = (SDDPM_MJ[T] * MILLIJOULE - first) / (cost.ac_pj * T * others)
    mac = sum(n * (1 if name in once else T) for name, n in macs.items() if name in real)
    spiking = sum(n for name, n in macs.items() if name not in real)
    honest = (mac * cost.mac_pj + rate * T * spiking * cost.ac_pj) / MILLIJOULE
    parameters = sum(p.numel() for p in model.parameters()) + SINUSOIDS
    return PublishedRow(f"SDDPM, T = {T}", SDDPM_MJ[T], rate, honest, sum(macs.values()) / 1e9, parameters)


def real_valued_layers() -> tuple[set[str], set[str]]:
    """Names of SDDPM's layers whose input is not binary, and of those that run once for all T, found by running a
    network.

    This does not depend on the widths, so a network of the same structure with a sixteenth of the width is used.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SpikingUNet2DModel(sample_size=16, base_channels=8, temporal_modulation=True).eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5)  # so that no layer outputs zeros
        with counting(model) as counter, torch.no_grad():
            model(torch.randn(2, 3, 16, 16), 500)
    layers = [layer for layer in counter.take() if layer.macs]
    return {layer.name for layer in layers if not layer.binary}, {
        layer.name for layer in layers if len(layer.images) == 1
    }
