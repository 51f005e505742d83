"""The spiking U-Net written as in published code: the baseline of our speed measurements.

Plain eager PyTorch: spikingjelly's IF neurons in their multi-step mode, the image repeated T times before the first
layer, NCHW, no fusion, float32. Parameters have the names of `SpikingUNet2DModel`, so its weights load unchanged,
and the two give the same numbers (tests/benchmarks/test_reference_equivalent.py). It covers SDDPM's own network: IF,
hard reset to 0, ATan(2), no temporal modulation, no patches.

Needs spikingjelly: pip install --no-deps spikingjelly==2.0.0 loguru
"""

import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from sddpm.errors import UserError
from sddpm.models import SpikingUNet2DModel

COVERED = {
    "neuron": "if",
    "v_reset": 0.0,
    "detach_reset": False,
    "surrogate": "atan",
    "surrogate_alpha": None,
    "temporal_modulation": False,
    "patch_size": 1,
}


def _conv(in_channels: int, channels: int, size: int = 3, stride: int = 1) -> layer.Conv2d:
    return layer.Conv2d(in_channels, channels, size, stride=stride, padding=size // 2, step_mode="m")


def _norm(channels: int) -> layer.BatchNorm2d:
    return layer.BatchNorm2d(channels, step_mode="m")


def _neuron(v_threshold: float) -> neuron.IFNode:
    return neuron.IFNode(v_threshold=v_threshold, surrogate_function=surrogate.ATan(), step_mode="m")


class TimeEmbedding(nn.Module):
    def __init__(self, rows: int, channels: int):
        super().__init__()
        self.register_buffer("table", torch.zeros(rows, channels))
        self.linear1 = nn.Linear(channels, 4 * channels)
        self.linear2 = nn.Linear(4 * channels, 4 * channels)

    def forward(self, t: Tensor) -> Tensor:
        return self.linear2(F.silu(self.linear1(self.table[t])))


class Encoder(nn.Module):
    def __init__(self, in_channels: int, channels: int, v_threshold: float):
        super().__init__()
        self.conv1, self.norm1 = _conv(in_channels, channels), _norm(channels)
        self.neuron = _neuron(v_threshold)
        self.conv2, self.norm2 = _conv(channels, channels), _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv2(self.neuron(self.norm1(self.conv1(x)))))


class ResBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, time_channels: int, v_threshold: float):
        super().__init__()
        self.neuron1, self.conv1, self.norm1 = _neuron(v_threshold), _conv(in_channels, channels), _norm(channels)
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, channels))
        self.neuron2, self.conv2, self.norm2 = _neuron(v_threshold), _conv(channels, channels), _norm(channels)
        self.shortcut = _conv(in_channels, channels, 1) if in_channels != channels else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.norm1(self.conv1(self.neuron1(x)))
        h = torch.add(self.time_projection(emb)[:, :, None, None].expand_as(h), h)
        return self.norm2(self.conv2(self.neuron2(h))) + self.shortcut(x)


class Resample(nn.Module):
    def __init__(self, channels: int, v_threshold: float, up: bool):
        super().__init__()
        self.up = up
        self.neuron, self.conv = _neuron(v_threshold), _conv(channels, channels, stride=1 if up else 2)
        self.norm = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.neuron(x)
        if self.up:
            x = F.interpolate(x.flatten(0, 1), scale_factor=2, mode="nearest").unflatten(0, x.shape[:2])
        return self.norm(self.conv(x))


class Level(nn.Module):
    def __init__(self, blocks: list[ResBlock], resample: Resample | None):
        super().__init__()
        self.blocks, self.resample = nn.ModuleList(blocks), resample


class Readout(nn.Module):
    def __init__(self, channels: int, out_channels: int, decay: float):
        super().__init__()
        self.decay = decay
        self.norm, self.conv = _norm(channels), _conv(channels, out_channels)
        self.out_conv, self.out_norm = nn.Conv2d(out_channels, out_channels, 3), nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv(F.silu(self.norm(x)))
        kernel = self.out_conv.weight.unsqueeze(-1)  # 3 x 3 x 1: a spatial convolution of [B, C, H, W, T]
        b = F.conv3d(a.permute(1, 2, 3, 4, 0), kernel, self.out_conv.bias, padding=(1, 1, 0))
        out = a + F.silu(self.out_norm(b)).permute(4, 0, 1, 2, 3)
        T = len(out)
        weights = torch.pow(self.decay, torch.arange(T - 1, -1, -1, device=x.device)).to(x.dtype)
        return torch.sum(out * weights.view(-1, 1, 1, 1, 1), 0)


class ReferenceUNet(nn.Module):
    """x_t [B, C, H, W] and LongTensor t [B] -> prediction [B, C_out, H, W]. See `reference_equivalent`."""

    def __init__(self, config: dict):
        super().__init__()
        width, threshold, blocks = config["base_channels"], config["v_threshold"], config["num_res_blocks"]
        widths = [width * mult for mult in config["channel_mult"]]
        last = len(widths) - 1
        self.T = config["T"]
        self.time_embedding = TimeEmbedding(config["num_train_timesteps"], width)
        self.encoder = Encoder(config["in_channels"], width, threshold)
        self.down, self.up, skips, current = nn.ModuleList(), nn.ModuleList(), [width], width
        for i, channels in enumerate(widths):
            level = []
            for _ in range(blocks):
                level.append(ResBlock(current, channels, 4 * width, threshold))
                current = channels
            self.down.append(Level(level, Resample(channels, threshold, up=False) if i < last else None))
            skips += [channels] * (blocks + (i < last))
        self.middle = nn.ModuleList([ResBlock(current, current, 4 * width, threshold) for _ in range(2)])
        for i, channels in reversed(list(enumerate(widths))):
            level = []
            for _ in range(blocks + 1):
                level.append(ResBlock(current + skips.pop(), channels, 4 * width, threshold))
                current = channels
            self.up.append(Level(level, Resample(channels, threshold, up=True) if i else None))
        self.readout = Readout(current, config["out_channels"], config["readout_decay"])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        emb = self.time_embedding(t)
        h = self.encoder(x.unsqueeze(0).repeat(self.T, 1, 1, 1, 1))
        skips = [h]
        for level in self.down:
            for block in level.blocks:
                h = block(h, emb)
                skips.append(h)
            if level.resample is not None:
                h = level.resample(h)
                skips.append(h)
        for block in self.middle:
            h = block(h, emb)
        for level in self.up:
            for block in level.blocks:
                h = block(torch.cat([h, skips.pop()], dim=2), emb)
            if level.resample is not None:
                h = level.resample(h)
        out = self.readout(h)
        functional.reset_net(self)  # membranes are stored in spikingjelly's modules
        return out


def reference_equivalent(model: SpikingUNet2DModel) -> ReferenceUNet:
    """The baseline with the configuration, weights, dtype and mode of `model`, in its own memory, NCHW.

    Raises:
        UserError: a variant that the reference code does not have.
    """
    config = dict(model.config)
    for name, value in COVERED.items():
        if config[name] != value and not (name == "surrogate_alpha" and config[name] == 2.0):
            raise UserError(f"the reference code only supports {name}={value!r}, this model has {config[name]!r}")
    if not isinstance(config["v_threshold"], int | float):
        raise UserError("the reference code only supports one threshold for all layers, this model has several")
    baseline = ReferenceUNet(config).to(next(model.parameters()))
    baseline.load_state_dict(model.state_dict())
    for parameter in baseline.parameters():
        parameter.data = parameter.data.contiguous()
    return baseline.train(model.training)
