"""Early exit over T: the network is read out after fewer SNN time steps where the readout has settled."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sddpm.errors import UserError
from sddpm.models.config import labels_for
from sddpm.models.layers import ModulatedStepConv2d
from sddpm.models.thresholds import Thresholds
from sddpm.models.unet import SpikingUNet2DModel, SpikingUNet2DOutput
from sddpm.neurons import SpikingNeuron, State
from sddpm.neurons.modules import carried_states


class EarlyExit(nn.Module):
    """A spiking U-Net that goes through its SNN time steps one by one and leaves out those that would change little.

    The readout is y = sum over n of w[n] out[n], w[n] = decay^(T-1-n). After n steps the last of them stands in for
    those to come:

        y_n = sum over m < n of w[m] out[m] + (sum over m >= n of w[m]) out[n-1],   y_T = y

    A sample leaves with y_n when 0 < |y_n - y_(n-1)| < tolerance |y_n| (Euclidean norms over its pixels), at n = 2 at
    the earliest; no change at all means that no spike has come through to the readout yet. What the network would have
    done afterwards does not reach back, so that with a tolerance of 0 the output is the network's, up to rounding.

    `snn_steps` is what the samples of the last call took: LongTensor [B] of 1 to T.

    Args:
        unet: the network, in evaluation mode when it is called.
        tolerance: relative change below which the readout counts as settled, at least 0.

    Raises:
        UserError: another kind of model, layers in the place of neurons that keep no state, or a tolerance that is no
            such number.
    """

    def __init__(self, unet: nn.Module, tolerance: float):
        super().__init__()
        if not isinstance(unet, SpikingUNet2DModel):
            raise UserError(f"early exit over SNN time steps needs a spiking U-Net, not a {type(unet).__name__}")
        if unet.config["signed_spikes"]:
            raise UserError("early exit over SNN time steps is not for signed spikes, which need all of them")
        if unet.config["synaptic_currents"]:
            raise UserError("early exit over SNN time steps is not for synaptic currents, which need all of them")
        for name, layer in unet.foreign_neurons().items():
            if not isinstance(layer, SpikingNeuron):
                raise UserError(f"early exit over SNN time steps needs neurons: {name} is a {type(layer).__name__}")
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


class _Steps:
    """Where an evaluation has come to: at SNN time step n, for the samples that are still on their way."""

    def __init__(self, unet: SpikingUNet2DModel):
        self.encoder, self.neurons = unet.encoder, unet.neurons()
        modulated = [layer for layer in unet.modules() if isinstance(layer, ModulatedStepConv2d)]
        self.modulated = [layer for layer in modulated if layer is not unet.encoder.conv1]
        self.current: Tensor | None = None  # of the first convolution: [T, ...] with temporal modulation, else [1, ...]
        self.n = 0

    def first_current(self, x: Tensor) -> Tensor:
        """The output of the first convolution at time step n, [1, B, ...]: it is evaluated once for all of them."""
        if self.current is None:
            self.current = self.encoder.first_current(x)
        return self.current[self.n : self.n + 1] if len(self.current) > 1 else self.current

    def advance(self, going: Tensor) -> None:
        """On to the next time step, with the samples that `going`, bool [B], names."""
        assert self.current is not None
        self.current = self.current[:, going]
        for name, neuron in self.neurons.items():
            if neuron.state is None:
                raise UserError(
                    f"early exit over SNN time steps needs neurons that keep a state: {name}, a "
                    f"{type(neuron).__name__}, does not call SpikingNeuron.forward"
                )
            neuron.state = _select(neuron.state, going)
        self.go_to(self.n + 1)

    def go_to(self, n: int | None) -> None:
        """Tell the layers that scale each time step differently which one it is; None for all at once."""
        self.n = n or 0
        for conv in self.modulated:
            conv.step = n


def _select(state: State, going: Tensor) -> State:
    """The samples of a state that go on."""
    return state[going] if isinstance(state, Tensor) else type(state)(*(each[going] for each in state))


@contextmanager
def _one_step_at_a_time(unet: SpikingUNet2DModel) -> Iterator[_Steps]:
    """Inside the block every call of `unet` is of its next SNN time step, and gives out[n] instead of the readout."""
    steps = _Steps(unet)
    unet.encoder.source = steps.first_current
    steps.go_to(0)
    try:
        with carried_states(steps.neurons.values()):
            yield steps
    finally:
        unet.encoder.source = None
        steps.go_to(None)
