"""A network whose v is linear in x_t, with a slope and an offset for each time step and class: the exact one for data
of N(mean, deviation^2), and the probability flow of these data, in closed form."""

import math
from types import SimpleNamespace

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from sddpm.diffusion.schedule import NoiseSchedule

ALPHAS = NoiseSchedule().alphas_cumprod
PHI = [math.acos(math.sqrt(a)) for a in ALPHAS.tolist()]


class LinearModel(ModelMixin, ConfigMixin):
    """v = slope[t] x_t + offset[t, class]; the last class is none."""

    @register_to_config
    def __init__(
        self, sample_size: int = 8, in_channels: int = 1, out_channels: int = 1, num_classes: int | None = None
    ):
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1000))
        self.offset = nn.Parameter(torch.zeros(1000, 1 + (num_classes or 0)))

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        t = torch.as_tensor(timestep).expand(len(sample))
        none = torch.full((len(sample),), self.offset.shape[1] - 1)
        labels = none if class_labels is None else class_labels
        v = self.slope[t].view(-1, 1, 1, 1) * sample + self.offset[t, labels].view(-1, 1, 1, 1)
        return SimpleNamespace(sample=v) if return_dict else (v,)


def exact_model(means, deviation, **options):
    """The one that has learned data of N(means[class], deviation^2), in float64."""
    model = LinearModel(**options).double()
    with torch.no_grad():
        for t, phi in enumerate(PHI):
            for label, mean in enumerate(means):
                model.slope[t], model.offset[t, label] = velocity(phi, mean, deviation)
    return model


def velocity(phi, mean, deviation):
    """(slope, offset) of v = (cos z - x_0) / sin, x_0 = mean + k (z - cos mean)."""
    cos, sin = math.cos(phi), math.sin(phi)
    k = cos * deviation**2 / (cos**2 * deviation**2 + sin**2)
    return (cos - k) / sin, -(mean - k * cos * mean) / sin


def walked(nodes, end, mean, deviation, scale=1.0):
    """(gain, shift) of DDIM's steps at the time steps `nodes`, to the angle `end`: z'' = gain z + shift. x_0 is taken
    `scale` times."""
    gain, shift = 1.0, 0.0
    for t, after in zip(nodes, [*(PHI[t] for t in nodes[1:]), end], strict=True):
        phi = PHI[t]
        slope, offset = velocity(phi, mean, deviation)
        x0 = [scale * (math.cos(phi) - math.sin(phi) * slope), scale * -math.sin(phi) * offset]
        ratio = math.sin(after) / math.sin(phi)
        a = math.cos(after) * x0[0] + ratio * (1 - math.cos(phi) * x0[0])
        b = (math.cos(after) - ratio * math.cos(phi)) * x0[1]
        gain, shift = a * gain, a * shift + b
    return gain, shift


def flow(phi, end, mean, deviation):
    """(gain, shift) of the probability flow."""
    spread = [math.sqrt((math.cos(p) * deviation) ** 2 + math.sin(p) ** 2) for p in (phi, end)]
    gain = spread[1] / spread[0]
    return gain, math.cos(end) * mean - gain * math.cos(phi) * mean
