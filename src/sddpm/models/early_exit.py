"""Early exit over T: stop after fewer SNN time steps when the readout has converged."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sddpm.errors import UserError
from sddpm.models.config import labels_for, steps_for
from sddpm.models.layers import ModulatedStepConv2d
from sddpm.models.thresholds import Thresholds
from sddpm.models.unet import SpikingUNet2DModel, SpikingUNet2DOutput
from sddpm.neurons import SpikingNeuron, State
from sddpm.neurons.modules import carried_states


class EarlyExit(nn.Module):
    """A spiking U-Net that runs its SNN time steps one by one and skips the last ones when they would change little.

    The readout is y = sum over n of w[n] out[n], w[n] = decay^(T-1-n). After n steps, the last output replaces the
    outputs of the remaining steps:

        y_n = sum over m < n of w[m] out[m] + (sum over m >= n of w[m]) out[n-1],   y_T = y

    A sample exits with y_n when 0 < |y_n - y_(n-1)| < tolerance |y_n| (Euclidean norms over its pixels), at n = 2 at
    the earliest; no change at all means that no spike has reached the readout yet. Later time steps do not influence
    earlier ones, so with a tolerance of 0 the output equals the network's, up to rounding.

    `snn_steps` is the number of SNN time steps each sample of the last call used: LongTensor [B] of 1 to T.

    Args:
        unet: the network, in evaluation mode when it is called.
        tolerance: relative change below which the readout counts as converged, at least 0.

    Raises:
        UserError: another kind of model, stateless layers in place of the neurons, or a tolerance that is not a number
            of at least 0.
    """

    def __init__(self, unet: nn.Module, tolerance: float):
        super().__init__()
        if not isinstance(unet, SpikingUNet2DModel):
            raise UserError(f"early exit over SNN time steps needs a spiking U-Net, not a {type(unet).__name__}")
        if unet.config["signed_spikes"]:
            raise UserError(
                "early exit over SNN time steps needs a network without signed spikes, which use all time steps"
            )
        if unet.config["synaptic_currents"]:
            raise UserError(
                "early exit over SNN time steps needs a network without synaptic currents, which use all time steps"
            )
        for name, layer in unet.foreign_neurons().items():
            if not isinstance(layer, SpikingNeuron):
                raise UserError(
                    f"early exit over SNN time steps needs a SpikingNeuron at {name}, not a {type(layer).__name__}"
                )
        if not 0 <= tolerance < float("inf"):
            raise UserError(f"the exit tolerance must be a number of at least 0, not {tolerance}")
        self.unet, self.tolerance = unet, float(tolerance)
        self.config = unet.config
        self.snn_steps: Tensor | None = None

    def at_threshold(self, thresholds: Thresholds | None):
        """Same as the network's `at_threshold`."""
        return self.unet.at_threshold(thresholds)

    def forward(
        self, sample: Tensor, timestep: Tensor | int, class_labels: Tensor | None = None
    ) -> SpikingUNet2DOutput:
        """Arguments and errors as in the network's `forward`; also raises `UserError` in training mode."""
        if self.unet.training:
            raise UserError(
                "early exit needs evaluation mode, model.eval(): batch norm in training mode uses all time steps at "
                "once"
            )
        T, decay = self.config["T"], self.config["readout_decay"]
        weights = torch.pow(decay, torch.arange(T - 1, -1, -1, device=sample.device)).to(sample.dtype)
        x, t = sample, steps_for(self.config, timestep, len(sample)).to(sample.device)
        labels = labels_for(self.config, class_labels, sample)
        rows = torch.arange(len(sample), device=sample.device)  # of the samples that have not exited yet
        prediction, taken = None, torch.full_like(rows, T)
        past = sample.new_zeros(len(sample), *[1] * (sample.ndim - 1))
        if self.unet.skip is not None:  # once; the rest is evaluated at every time step
            past = self.unet.skip(sample, self.unet.embed(t, labels))
        with _one_step_at_a_time(self.unet) as state:
            sofar, previous = 0.0, None
            for n in range(T):
                out = self.unet(x, t, labels).sample
                sofar = sofar + weights[n] * out
                estimate = past + sofar + weights[n + 1 :].sum() * out
                prediction = torch.zeros_like(estimate) if prediction is None else prediction
                prediction[rows], taken[rows] = estimate, n + 1
                change = _norm(estimate - previous) if n else torch.zeros_like(_norm(estimate))
                going = (change == 0) | (change >= self.tolerance * _norm(estimate))
                if n == T - 1 or not going.any():
                    break
                state.advance(going)
                x, t, rows, sofar, previous, past = (each[going] for each in (x, t, rows, sofar, estimate, past))
                labels = None if labels is None else labels[going]
        self.snn_steps = taken
        return SpikingUNet2DOutput(sample=prediction)  # type: ignore[arg-type]


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)


class _Steps:
    """Progress of an evaluation: SNN time step n, for the samples that have not exited yet."""

    def __init__(self, unet: SpikingUNet2DModel):
        self.encoder, self.neurons = unet.encoder, unet.neurons()
        modulated = [layer for layer in unet.modules() if isinstance(layer, ModulatedStepConv2d)]
        self.modulated = [layer for layer in modulated if layer is not unet.encoder.conv1]
        self.current: Tensor | None = None  # of the first convolution: [T, ...] with temporal modulation, else [1, ...]
        self.n = 0

    def first_current(self, x: Tensor) -> Tensor:
        """The output of the first convolution at time step n, [1, B, ...]: the convolution is evaluated once for all
        time steps."""
        if self.current is None:
            self.current = self.encoder.first_current(x)
        return self.current[self.n : self.n + 1] if len(self.current) > 1 else self.current

    def advance(self, going: Tensor) -> None:
        """Go to the next time step with the samples where `going`, bool [B], is true."""
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
        """Set the current time step in the layers with a scale per time step; None for all time steps at once."""
        self.n = n or 0
        for conv in self.modulated:
            conv.step = n


def _select(state: State, going: Tensor) -> State:
    """The state of the samples that continue."""
    return state[going] if isinstance(state, Tensor) else type(state)(*(each[going] for each in state))


@contextmanager
def _one_step_at_a_time(unet: SpikingUNet2DModel) -> Iterator[_Steps]:
    """Inside the block every call of `unet` computes its next SNN time step and returns out[n] instead of the
    readout, without the input skip."""
    steps, skip = _Steps(unet), unet.skip
    unet.encoder.source, unet.skip = steps.first_current, None
    steps.go_to(0)
    try:
        with carried_states(steps.neurons.values()):
            yield steps
    finally:
        unet.encoder.source, unet.skip = None, skip
        steps.go_to(None)
