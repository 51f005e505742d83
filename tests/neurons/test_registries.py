"""Neurons and surrogates that users register: against traces by hand and closed forms, and refusals in one line."""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import sddpm
from sddpm import UserError, register_neuron, register_surrogate
from sddpm.neurons import NEURONS, SURROGATES, Dynamics, SpikingNeuron, fire, multi_step, reset, step, steps

pytestmark = pytest.mark.usefixtures("registries")


def gaussian_vjp(grad, u, alpha):
    return alpha / math.sqrt(math.pi) * torch.exp(-((alpha * u) ** 2)) * grad


class Current(NamedTuple):
    v: Tensor
    i: Tensor


def start_current(x, dynamics, v_threshold):
    return Current(torch.zeros_like(x), torch.zeros_like(x))


def step_current(x, state, dynamics, v_threshold, gain):
    i = dynamics.options["decay"] * state.i + x
    h = state.v + gain * i
    s = fire(h, dynamics, v_threshold)
    return s, Current(reset(h, s, dynamics, v_threshold), i), h


def register_current(name="current"):
    register_neuron(
        name,
        step_current,
        start_current,
        description="IF neurons behind a synapse",
        parameters={"gain": lambda dynamics: 1.0},
        options={"decay": 0.5},
        leaks=1,
    )


def test_a_learned_parameter_may_start_at_a_whole_number():
    step_scaled = lambda x, v, dynamics, v_threshold, gain: (fire(gain * x, dynamics, v_threshold), v, gain * x)  # noqa: E731
    register_neuron("scaled", step_scaled, parameters={"gain": lambda dynamics: 2})
    layer = SpikingNeuron(Dynamics(neuron="scaled"))
    assert layer.gain.dtype == torch.float32 and layer.gain.item() == 2 and layer.gain.requires_grad
    assert layer(torch.tensor([[0.6]])).tolist() == [[1.0]]


def test_a_surrogate_is_one_entry():
    register_surrogate("bell", gaussian_vjp, 2.0)
    x = torch.linspace(-1, 3, 9, dtype=torch.float64, requires_grad=True)
    dynamics = Dynamics(surrogate="bell")
    assert dynamics.surrogate_alpha == 2.0
    (grad,) = torch.autograd.grad(multi_step(x[None], dynamics).sum(), x)
    torch.testing.assert_close(grad, 2 / math.pi**0.5 * torch.exp(-4 * (x.detach() - 1) ** 2), rtol=1e-12, atol=0)


def test_a_neuron_is_one_entry_and_its_state_a_record():
    """By hand, decay 1/2: i = 1/2, 1/2, 1/4; h = 1/2, 1 (fires), 1/4."""
    register_current()
    x, gain = torch.tensor([0.5, 0.25, 0.0], dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    dynamics = Dynamics(neuron="current")
    trace = [(s.item(), h.item(), state.v.item(), state.i.item()) for s, state, h in steps(x, dynamics, gain=gain)]
    assert trace == [(0, 0.5, 0.5, 0.5), (1, 1.0, 0.0, 0.5), (0, 0.25, 0.25, 0.25)]
    assert multi_step(x, dynamics, gain=gain).tolist() == [0, 1, 0]
    s, state, h = step(x[0], start_current(x[0], dynamics, 1.0), dynamics, gain=gain)
    assert (s.item(), h.item(), state.i.item()) == (0, 0.5, 0.5)


def test_a_layer_learns_what_its_neuron_learns():
    register_current()
    layer = SpikingNeuron(Dynamics(neuron="current", options={"decay": 0.0}), v_threshold=2.0)
    assert {name: value.item() for name, value in layer.named_parameters()} == {"gain": 1.0}
    x = torch.rand(4, 8)
    assert torch.equal(layer(x), multi_step(x, Dynamics(), v_threshold=2.0))  # without decay it is an IF neuron
    layer(x).sum().backward()
    assert layer.gain.grad is not None and layer.gain.grad != 0
    assert torch.equal(layer(x.bfloat16()).float(), layer(x.bfloat16().float()))


def test_options_have_defaults_and_are_checked():
    register_current()
    assert Dynamics(neuron="current").options == {"decay": 0.5}
    assert Dynamics(neuron="current") == Dynamics(neuron="current", options={"decay": 0.5})
    assert len({Dynamics(neuron="current"), Dynamics(neuron="current")}) == 1
    for options, message in [
        ({"deacy": 0.5}, "neuron 'current' has no option 'deacy': it has decay"),
        ({"decay": "fast"}, "decay of neuron 'current' must be like 0.5, got 'fast'"),
        ({"decay": True}, "must be like 0.5, got True"),
        ({"decay": float("nan")}, "must be like 0.5, got nan"),
    ]:
        with pytest.raises(UserError, match=message):
            Dynamics(neuron="current", options=options)
    with pytest.raises(UserError, match="neuron 'lif' has no option 'decay': it has none"):
        Dynamics(neuron="lif", options={"decay": 0.5})


def test_a_check_of_its_own():
    def check(dynamics):
        if dynamics.v_reset is not None:
            raise UserError("this neuron needs the soft reset")

    register_neuron("soft", NEURONS["if"].step, check=check)
    with pytest.raises(UserError, match="soft reset"):
        Dynamics(neuron="soft")
    x = torch.rand(4, 8) * 2
    assert torch.equal(multi_step(x, Dynamics(neuron="soft", v_reset=None)), multi_step(x, Dynamics(v_reset=None)))


@pytest.mark.parametrize("name", ["if", "plif", "quantized_relu", "", "two words", "1st", None])
def test_names_of_neurons_that_are_refused(name):
    before = dict(NEURONS)
    with pytest.raises(UserError) as error:
        register_current(name)
    assert "\n" not in str(error.value) and repr(name) in str(error.value)
    assert before == NEURONS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 3}, "neuron 'odd': step must be a function, not 3"),
        ({"step": step_current, "parameters": {"gain": 1.0}}, "gain must be a function, not 1.0"),
        ({"step": step_current, "parameters": {"forward": lambda _: 1.0}}, "no parameter can be named 'forward'"),
        ({"step": step_current, "options": {"decay": None}}, "the default of decay must be a number"),
    ],
)
def test_definitions_that_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        register_neuron("odd", **arguments)
    assert "odd" not in NEURONS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("atan", gaussian_vjp, 2.0), "the surrogate 'atan' already exists"),
        (("a b", gaussian_vjp, 2.0), "the name of a surrogate must be"),
        (("bell", None, 2.0), "needs a function"),
        (("bell", gaussian_vjp, 0), "default_alpha of surrogate 'bell' must be a finite number above 0, got 0"),
        (("bell", gaussian_vjp, "1"), "must be a finite number above 0, got '1'"),
    ],
)
def test_surrogates_that_are_refused(arguments, message):
    before = dict(SURROGATES)
    with pytest.raises(UserError, match=message):
        register_surrogate(*arguments)
    assert before == SURROGATES


def test_what_is_not_registered_is_named():
    for options, message in [
        ({"neuron": "alif"}, r"unknown neuron 'alif': .* or call sddpm.register_neuron\('alif', ...\) first"),
        ({"surrogate": "box"}, r"unknown surrogate 'box': .* or call sddpm.register_surrogate\('box', ...\) first"),
    ]:
        with pytest.raises(UserError, match=message):
            Dynamics(**options)


def test_arguments_that_no_neuron_has():
    with pytest.raises(TypeError, match="v_treshold"):
        multi_step(torch.rand(2, 3), Dynamics(), v_treshold=0.5)  # pyright: ignore[reportCallIssue]
    register_current()
    with pytest.raises(UserError, match="needs its learned parameter gain"):
        list(steps(torch.rand(2, 3), Dynamics(neuron="current")))


def test_the_top_level_has_them():
    assert sddpm.register_neuron is register_neuron and "register_surrogate" in sddpm.__all__
