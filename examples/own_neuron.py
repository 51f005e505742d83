"""Custom neurons without editing the package: an adaptive threshold (ALIF) and a synapse with memory (CuBa-LIF).

    python examples/own_neuron.py [OUT] [STEPS]

registers both, trains each for STEPS (200) on the bundled digits, writes its run and a grid samples.png to OUT
(out/own_neuron), and prints the energy of a sample. A run that is there is not replaced. A saved model with such a
neuron can be loaded after the same `register_neuron` was called.

    ALIF      h[n] = v[n-1] + (x[n] - v[n-1]) / tau           Bellec et al., NeurIPS 2018, arXiv 1803.09574
              s[n] = 1 if h[n] >= v_threshold + beta a[n-1]   the threshold rises with every spike
              a[n] = rho a[n-1] + (1 - rho) s[n]              rho = exp(-1 / tau_adaptation)

    CuBa-LIF  i[n] = d i[n-1] + x[n]                          the current of a synapse, d = sigmoid(synapse) learned
              h[n] = v[n-1] + (i[n] - v[n-1]) / tau           current-based: Gerstner & Kistler, 2002, section 4.1
"""

import math
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sddpm import load_pipeline, register_neuron
from sddpm.data import unit_to_uint8
from sddpm.energy import load_cost_model, measure_sampling
from sddpm.energy.report import joules
from sddpm.errors import UserError
from sddpm.figures.grid import image_grid
from sddpm.neurons import Dynamics, fire, reset
from sddpm.training import load_config, train

NEURONS = ("alif", "cuba_lif")


class Adapting(NamedTuple):
    """The membrane and the adaptation of the threshold, both with the shape of a current."""

    v: Tensor
    a: Tensor


def start_alif(x: Tensor, dynamics: Dynamics, v_threshold: float) -> Adapting:
    return Adapting(torch.zeros_like(x), torch.zeros_like(x))


def step_alif(x: Tensor, state: Adapting, dynamics: Dynamics, v_threshold: float):
    beta, tau_adaptation = (dynamics.options[name] for name in ("beta", "tau_adaptation"))
    threshold = v_threshold + beta * state.a
    h = state.v + (x - state.v) / dynamics.tau
    s = fire(h, dynamics, threshold)
    rho = math.exp(-1 / tau_adaptation)
    return s, Adapting(reset(h, s, dynamics, threshold), rho * state.a + (1 - rho) * s), h


def check_alif(dynamics: Dynamics) -> None:
    if not dynamics.options["tau_adaptation"] > 0:
        raise UserError(f"tau_adaptation must be above 0 time steps, got {dynamics.options['tau_adaptation']}")


class Synaptic(NamedTuple):
    """The membrane and the synaptic current, both of the shape of an input."""

    v: Tensor
    i: Tensor


def start_cuba(x: Tensor, dynamics: Dynamics, v_threshold: float) -> Synaptic:
    return Synaptic(torch.zeros_like(x), torch.zeros_like(x))


def step_cuba(x: Tensor, state: Synaptic, dynamics: Dynamics, v_threshold: float, synapse: Tensor):
    i = synapse.sigmoid() * state.i + x
    h = state.v + (i - state.v) / dynamics.tau
    s = fire(h, dynamics, v_threshold)
    return s, Synaptic(reset(h, s, dynamics, v_threshold), i), h


def register() -> None:
    register_neuron(
        "alif",
        step_alif,
        start_alif,
        description="leaky integrate-and-fire whose threshold rises with every spike",
        options={"beta": 1.8, "tau_adaptation": 4.0},
        check=check_alif,
        leaks=2,  # of the membrane and of the adaptation
    )
    register_neuron(
        "cuba_lif",
        step_cuba,
        start_cuba,
        description="leaky integrate-and-fire after synapses with a learned memory",
        parameters={"synapse": lambda dynamics: -1.0},
        leaks=2,
    )


def main(out: Path, steps: int = 200, settings: tuple[str, ...] = ()) -> None:
    for neuron in NEURONS:
        if (out / neuron).exists():
            raise UserError(f"{out / neuron} exists already: give another OUT")
    register()
    warm_up = f"train.warmup_steps={steps // 10}"
    for neuron in NEURONS:
        # 1. train: the config names the neuron like any other
        run = out / neuron
        names = (f"model.neuron={neuron}", "model.tau=1.5", f"train.steps={steps}", warm_up, "train.sample_every=0")
        train(load_config("digits", (*names, *settings)), run)

        # 2. load and sample
        pipeline = load_pipeline(run)
        images = torch.as_tensor(pipeline(seeds=range(16), num_inference_steps=20, output_type="pt").images)
        image_grid(unit_to_uint8(images)).save(run / "samples.png")

        # 3. measure the energy of a sample
        ledger = measure_sampling(pipeline, range(2), num_inference_steps=5, title=neuron)
        energy = ledger.per_sample(load_cost_model("45nm")).total
        print(f"{neuron}: see {run / 'samples.png'}; a sample of 5 evaluations needs {joules(energy)}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/own_neuron"), *map(int, sys.argv[2:3]))
    except UserError as error:
        sys.exit(f"error: {error}")
