"""Float32 against float64, layer by layer.

One flipped spike in an untrained network moves everything behind it by a quarter, so end-to-end agreement in float32
means nothing. Here every neuron layer hands on the spikes of the float64 run, and the currents that reach each layer
must agree to 2e-5 of their deviation.
"""

import torch

TOLERANCE = 2e-5


@torch.no_grad()
def test_currents_of_every_layer(case_and_model):
    case, exact = case_and_model
    single = exact.__class__.from_config(exact.config).eval()
    single.load_state_dict(exact.state_dict())
    x, t = case["x"], case["t"]

    currents, spikes = {}, {}
    for name, neuron in exact.neurons().items():

        def remember(_module, inputs, output, name=name):
            currents[name], spikes[name] = inputs[0], output

        neuron.register_forward_hook(remember)
    expected = exact(x.double(), t).sample

    errors, flips = {}, {}
    for name, neuron in single.neurons().items():

        def compare_and_replace(_module, inputs, output, name=name):
            assert inputs[0].dtype == torch.float32
            reference = currents[name]
            errors[name] = ((inputs[0].double() - reference).abs().max() / reference.std()).item()
            flips[name] = (output.double() != spikes[name]).double().mean().item()
            return spikes[name].float()

        neuron.register_forward_hook(compare_and_replace)
    actual = single(x, t).sample

    assert len(errors) == len(currents)
    assert max(errors.values()) < TOLERANCE, max(errors, key=errors.__getitem__)
    assert max(flips.values()) < 1e-3  # a neuron given the same current fires the same but at the very threshold
    assert ((actual.double() - expected).abs().max() / expected.std()).item() < TOLERANCE
