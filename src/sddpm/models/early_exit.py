"""Early exit over T: the network is read out after fewer SNN time steps where the readout has settled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from sddpm.errors import UserError
from sddpm.models.config import labels_for
from sddpm.models.layers import ModulatedStepConv2d, StepConv2d
from sddpm.models.thresholds import Thresholds, spiking_neurons
from sddpm.models.unet import SpikingUNet2DModel, SpikingUNet2DOutput
from sddpm.neurons import SpikingNeuron
from sddpm.neurons.functional import start_of_membrane, step


class EarlyExit(nn.Module):
    """A spiking U-Net that goes through its SNN time steps one by one and leaves out those that would change little.

    The readout is y = sum over n of w[n] out[n], w[n] = decay^(T-1-n). After n steps the last of them stands in for
    those to come:

        y_n = sum over m < n of w[m] out[m] + (sum over m >= n of w[m]) out[n-1],   y_T = y

    A sample leaves with y_n when 0 < |y_n - y_(n-1)| < tolerance |y_n| (Euclidean norms over its pixels), at n = 2 at
    the earliest; no change at all means that no spike has come through to the readout yet. What the network would have
    done afterwards does not reach back, so that with a tolerance of 0 the answer is the network's, up to rounding.

    `snn_steps` is what the samples of the last call took: LongTensor [B] of 1 to T.

    Args:
        unet: the network, in evaluation mode when it is called.
        tolerance: relative change below which the readout counts as settled, at least 0.

    Raises:
        UserError: another kind of model, or a tolerance that is no such number.
    """

    def __init__(self, unet: nn.Module, tolerance: float):
        super().__init__()
        if not isinstance(unet, SpikingUNet2DModel):
            raise UserError(f"early exit over SNN time steps needs a spiking U-Net, not a {type(unet).__name__}")
        if unet.config["signed_spikes"]:
            raise UserError("early exit over SNN time steps is not for signed spikes, which need all of them")
        if unet.config["synaptic_currents"]:
            raise UserError("early exit over SNN time steps is not for synaptic currents, which need all of them")
        if not 0 <= tolerance < float("inf"):
            raise UserError(f"the exit tolerance must be a number of at least 0, not {tolerance}")
        self.unet, self.tolerance = unet, float(tolerance)
        self.config = unet.config
        self.snn_steps: Tensor | None = None

    def at_threshold(self, thresholds: Thresholds | None):
        """As of the network."""
        return self.unet.at_threshold(thresholds)

    def forward(
        self, sample: Tensor, timestep: Tensor | int, class_labels: Tensor | None = None
    ) -> SpikingUNet2DOutput:
        """Arguments and errors as of the network, and `UserError` in training mode."""
        if self.unet.training:
            raise UserError("early exit is for evaluation: batch norm in training mode needs all time steps at once")
        T, decay = self.config["T"], self.config["readout_decay"]
        weights = torch.pow(decay, torch.arange(T - 1, -1, -1, device=sample.device)).to(sample.dtype)
        x, t = sample, torch.as_tensor(timestep, device=sample.device).long().expand(sample.shape[0])
        labels = labels_for(self.config, class_labels, sample)
        rows = torch.arange(len(sample), device=sample.device)  # of the samples that are still on their way
        answer, taken = None, torch.full_like(rows, T)
        with _one_step_at_a_time(self.unet) as state:
            sofar, previous = 0.0, None
            for n in range(T):
                out = self.unet(x, t, labels).sample
                sofar = sofar + weights[n] * out
                estimate = sofar + weights[n + 1 :].sum() * out
                answer = torch.zeros_like(estimate) if answer is None else answer
                answer[rows], taken[rows] = estimate, n + 1
                change = _norm(estimate - previous) if n else torch.zeros_like(_norm(estimate))
                going = (change == 0) | (change >= self.tolerance * _norm(estimate))
                if n == T - 1 or not going.any():
                    break
                state.advance(going)
                x, t, rows, sofar, previous = (each[going] for each in (x, t, rows, sofar, estimate))
                labels = None if labels is None else labels[going]
        self.snn_steps = taken
        return SpikingUNet2DOutput(sample=answer)  # type: ignore[arg-type]


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)


class _State:
    """What one evaluation carries from one SNN time step to the next, for the samples still on their way."""

    def __init__(self, unet: SpikingUNet2DModel):
        self.unet, self.n = unet, 0
        self.membranes: dict[SpikingNeuron, Tensor] = {}
        self.current: Tensor | None = None  # of the first convolution, which sees the same image at every step

    def advance(self, going: Tensor) -> None:
        self.n += 1
        self.membranes = {neuron: v[going] for neuron, v in self.membranes.items()}
        assert self.current is not None
        self.current = self.current[:, going]

    def encode(self, x: Tensor) -> Tensor:
        encoder = self.unet.encoder
        if self.current is None:
            self.current = encoder.conv1(x.unsqueeze(0))  # [T, ...] with temporal modulation, else [1, ...]
        current: Tensor = self.current  # type: ignore[assignment]
        now = current[self.n : self.n + 1] if len(current) > 1 else current
        return encoder.norm2(encoder.conv2(encoder.neuron(encoder.norm1(now))))

    def fire(self, neuron: SpikingNeuron, x: Tensor) -> Tensor:
        current = x[0] if x.dtype in (torch.float32, torch.float64) else x[0].float()
        if neuron not in self.membranes:
            start = start_of_membrane(neuron.dynamics, neuron.v_threshold)
            self.membranes[neuron] = torch.full_like(current, start)
        spikes, self.membranes[neuron], _ = step(
            current, self.membranes[neuron], neuron.dynamics, v_threshold=neuron.v_threshold, w=neuron.w
        )
        return spikes.to(x.dtype).unsqueeze(0)

    def modulate(self, conv: ModulatedStepConv2d, x: Tensor) -> Tensor:
        return StepConv2d.forward(conv, x) * conv.p[self.n]


@contextmanager
def _one_step_at_a_time(unet: SpikingUNet2DModel) -> Iterator[_State]:
    """Inside the block every call of `unet` is its next SNN time step, and answers out[n] instead of the readout."""
    state = _State(unet)
    forwards: dict[nn.Module, Callable[..., Tensor]] = {unet.encoder: state.encode}
    forwards |= {neuron: partial(state.fire, neuron) for neuron in spiking_neurons(unet).values()}
    for conv in unet.modules():
        if isinstance(conv, ModulatedStepConv2d) and conv is not unet.encoder.conv1:
            forwards[conv] = partial(state.modulate, conv)
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield state
    finally:
        for module in forwards:
            module.__dict__.pop("forward", None)
