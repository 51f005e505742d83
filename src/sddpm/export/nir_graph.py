"""A network as a graph of NIR, the exchange format of neuromorphic hardware (Pedersen et al., Nature Communications
2024, arXiv 2311.14641).

NIR has convolutions and integrate-and-fire neurons, and the inputs of a node are summed. It has no concatenation, no
upsampling and no batch norm. Therefore a convolution of concatenated features is written as one convolution for each
part, whose outputs are summed; batch norm is folded in float64; and a real-valued sum, such as that of a residual
block, is the list of its summands, each with an edge to every neuron that receives the sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import nir
import numpy as np
import torch
from torch import Tensor, nn

from sddpm.errors import UserError
from sddpm.inference.folding import affine, double, fold
from sddpm.models import SpikingUNet2DModel
from sddpm.models.blocks import PureSpikingResBlock
from sddpm.models.level import Level
from sddpm.models.readout import PureSpikingReadout
from sddpm.neurons import SpikingNeuron

DT = 1e-4  # seconds per SNN time step, as readers of NIR assume
Sources = list[str]  # nodes whose outputs sum to a value


def refusal(unet: nn.Module) -> str | None:
    """Why NIR cannot represent this network, and what is needed; None if it can."""
    if not isinstance(unet, SpikingUNet2DModel):
        return f"NIR needs a spiking network; this is a {type(unet).__name__}"
    config: Any = unet.config
    checks = [
        (len(config["channel_mult"]) == 1, "has no upsampling: a network of one level is needed, channel_mult = [k]"),
        (config["pure"], "passes spikes between convolutions, not real numbers: pure = true is needed"),
        (config["neuron"] == "if", f"export supports IF neurons, not {config['neuron']}: neuron = if is needed"),
        (config["v_reset"] == 0, "neurons have a hard reset to 0: v_reset = 0 is needed"),
        (config["initial_charge"] == 0, "neurons start at 0: initial_charge = 0 is needed"),
        (not config["signed_spikes"], "spikes have no sign: signed_spikes = false is needed"),
        (
            not config["temporal_modulation"],
            "weights do not change over T: temporal_modulation = false is needed",
        ),
        (not config["attention_resolutions"], "has no products of spikes: attention_resolutions = [] is needed"),
        (not config["synaptic_currents"], "files do not include the readout: synaptic_currents = false is needed"),
        (not config["input_skip"], "has no path around the network: input_skip = false is needed"),
        (config["dims"] == 2, "export supports images only: dims = 2 is needed"),
        (
            all(type(n) is SpikingNeuron for n in unet.neurons().values()),
            "export supports no neuron classes of your own",
        ),
    ]
    return next((f"NIR {reason}" for fits, reason in checks if not fits), None)


@dataclass
class _Graph:
    """Collects nodes and edges. size: height and width of the feature maps."""

    size: tuple[int, int]
    nodes: dict[str, nir.NIRNode] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, node: nir.NIRNode, sources: Sources) -> Sources:
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return [name]

    def conv(self, name: str, weight: Tensor, bias: Tensor | None, sources: Sources, padding: int) -> Sources:
        zeros = torch.zeros(len(weight), dtype=weight.dtype)
        values = [x.float().numpy() for x in (weight, zeros if bias is None else bias)]
        node = nir.Conv2d(
            input_shape=self.size,
            weight=values[0],
            stride=(1, 1),
            padding=(padding, padding),
            dilation=(1, 1),
            groups=1,
            bias=values[1],
        )
        return self.add(name, node, sources)

    def neuron(self, name: str, neuron: Any, channels: int, sources: Sources) -> Sources:
        """NIR neurons fire above the threshold, ours at or above it, so NIR gets the next smaller float."""
        shape = (channels, *self.size)
        below = np.nextafter(np.float32(neuron.v_threshold), np.float32(0))
        node = nir.IF(
            r=np.full(shape, 1 / DT, np.float32),
            v_threshold=np.full(shape, below, np.float32),
            v_reset=np.zeros(shape, np.float32),
        )
        return self.add(name, node, sources)


@torch.no_grad()
def nir_graph(unet: nn.Module, timestep: int | None = None) -> nir.NIRGraph:
    """The network as a NIR graph: patches and the diffusion step in, the currents of the readout out.

    Input [P + E, H, W], the same at all T time steps: the P = in_channels patch_size^2 channels of `to_patches(x_t)`,
    then E constant maps, SiLU of the embedding of t (plus that of the class). With `timestep` this step is in the
    biases, and the input is [P, H, W]. Output at time step n: [out_channels patch_size^2, H, W]. The sum over n with
    the weights readout_decay^(T-1-n) is the prediction in patches.

    Args:
        unet: the network.
        timestep: the one diffusion step that the graph is for; None for all.

    Raises:
        UserError: a network that NIR cannot represent, with the reason and what is needed; an invalid diffusion step.
    """
    if (reason := refusal(unet)) is not None:
        raise UserError(reason)
    unet = cast(SpikingUNet2DModel, unet)
    config: Any = unet.config
    shift = None
    if timestep is not None:
        if not 0 <= timestep < config["num_train_timesteps"] or config["num_classes"] is not None:
            limit = config["num_train_timesteps"] - 1
            raise UserError(
                f"timestep must be from 0 to {limit}, and the model must have no classes; got timestep {timestep}"
            )
        shift = double(unet.time_embedding(torch.tensor([timestep], device=unet.device)))[0]
    side = config["sample_size"] // config["patch_size"]
    patches = config["in_channels"] * config["patch_size"] ** 2
    maps = 4 * config["base_channels"] if timestep is None else 0
    g = _Graph((side, side))
    shape = np.array([patches + maps, side, side])
    g.add("input", nir.Input(input_type={"input": shape}), [])
    time = _Time(patches, maps, None if shift is None else nn.functional.silu(shift))

    # 1. encode
    encoder = unet.encoder
    first = fold(encoder.conv1, encoder.norm1)
    wide = nn.functional.pad(first.weight, (0, 0, 0, 0, 0, maps))  # zero weights for the maps
    current = g.conv("encoder.conv1", wide, first.bias[0], ["input"], 1)
    spikes = g.neuron("encoder.neuron", encoder.neuron, len(wide), current)
    second = fold(encoder.conv2, encoder.norm2)
    h = [(g.conv("encoder.conv2", second.weight, second.bias[0], spikes, 1), len(second.weight))]
    # 2. down, middle and up; each value is a list of parts with their channels
    skips = list(h)
    (down,), (up,) = unet.down, unet.up
    for j, block in enumerate(cast(Level, down).blocks):
        h = [_block(g, f"down.0.blocks.{j}", cast(PureSpikingResBlock, block), h, time)]
        skips += h
    for j, block in enumerate(unet.middle):
        h = [_block(g, f"middle.{j}", cast(PureSpikingResBlock, block), h, time)]
    # The norm before the last neuron only scales the output of the last block, so it is folded there.
    readout = cast(PureSpikingReadout, unet.readout)
    count = len(cast(Level, up).blocks)
    for j, block in enumerate(cast(Level, up).blocks):
        after = affine(readout.norm) if j == count - 1 else None
        h = [_block(g, f"up.0.blocks.{j}", cast(PureSpikingResBlock, block), [*h, skips.pop()], time, after)]
    # 3. read out
    ((sources, channels),) = h
    spikes = g.neuron("readout.neuron", readout.neuron, channels, sources)
    last = fold(readout.conv)
    out = g.conv("readout.conv", last.weight, last.bias[0], spikes, 1)
    g.add("output", nir.Output(output_type={"output": np.array([len(last.weight), side, side])}), out)
    return nir.NIRGraph(nodes=g.nodes, edges=g.edges)


@dataclass(frozen=True)
class _Time:
    """How blocks receive the diffusion step: from the input's channels `patches` to `patches + maps`, or from the SiLU
    of its embedding, float64 [4 base_channels], which is added to their biases."""

    patches: int
    maps: int
    value: Tensor | None


def _block(
    g: _Graph,
    name: str,
    block: PureSpikingResBlock,
    parts: Sequence[tuple[Sources, int]],
    time: _Time,
    after: tuple[Tensor, Tensor] | None = None,
) -> tuple[Sources, int]:
    """A residual block of the concatenation of `parts` (each with its channels). Returns the nodes whose sum is its
    output, and its channels. `after`: gain and offset of a norm after it."""
    width = block.conv1.out_channels
    # A layer of neurons on a concatenation becomes one layer for each part.
    labels = [""] if len(parts) == 1 else [f".{letter}" for letter in "ab"]
    spikes = [
        g.neuron(f"{name}.neuron1{label}", block.neuron1, channels, sources)
        for label, (sources, channels) in zip(labels, parts, strict=True)
    ]
    first = fold(block.conv1, block.norm1)
    projection = cast(nn.Linear, block.time_projection[1])
    weight, offset = double(projection.weight), double(projection.bias)
    bias = first.bias[0] + offset + (0 if time.value is None else weight @ time.value)
    sums = _convs(g, f"{name}.conv1", first.weight, bias, spikes, labels, 1)
    if time.value is None:
        selected = nn.functional.pad(weight, (time.patches, 0))[:, :, None, None]
        sums += g.conv(f"{name}.time_projection", selected, None, ["input"], 0)
    fired = g.neuron(f"{name}.neuron2", block.neuron2, width, sums)
    second = fold(block.conv2, block.norm2)
    gain, offset = (torch.ones_like(second.bias[0]), 0) if after is None else after
    scale = gain[:, None, None, None]
    out = g.conv(f"{name}.conv2", scale * second.weight, gain * second.bias[0] + offset, fired, 1)
    if isinstance(block.shortcut, nn.Identity):
        return out + [source for sources, _ in parts for source in sources], width
    direct = fold(block.shortcut)
    weight, bias = scale * direct.weight, gain * direct.bias[0]
    return out + _convs(g, f"{name}.shortcut", weight, bias, spikes, labels, 0), width


def _convs(
    g: _Graph, name: str, weight: Tensor, bias: Tensor, spikes: Sequence[Sources], labels: Sequence[str], padding: int
) -> Sources:
    """conv(cat(a, b)) as conv_a(a) + conv_b(b), with the bias in the first."""
    out: Sources = []
    channels = [g.nodes[source].v_threshold.shape[0] for (source,) in spikes]  # type: ignore[attr-defined]
    for i, (part, label) in enumerate(zip(weight.split(channels, 1), labels, strict=True)):
        out += g.conv(f"{name}{label}", part, bias if i == 0 else None, spikes[i], padding)
    return out
