"""The published figures: 29.23 mJ for the ANN, 10.97 and 22.96 mJ for SDDPM, and what an honest account says."""

import pytest

from sddpm.energy.cost import load_cost_model
from sddpm.energy.counts import NeuronCount, SynapticCount
from sddpm.energy.published import compare, mean_rate, published_ann, published_snn, real_valued_layers


def test_the_ann_is_rebuilt():
    """67,602,691 parameters, 6.35 GMAC, 29.21 mJ, for one evaluation of one image."""
    ann = published_ann()
    assert ann.parameters == 67_602_691
    assert ann.gmac == pytest.approx(6.351, abs=0.0015)
    assert ann.honest == pytest.approx(29.21, abs=0.005) and ann.published == 29.23


@pytest.mark.parametrize(("T", "published", "rate", "honest"), [(4, 10.97, 0.47, 15.6), (8, 22.96, 0.49, 32.0)])
def test_sddpm(T, published, rate, honest):
    """The formula needs a rate near 0.47; charged as MACs where they are, the total is about 15.6 and 32 mJ."""
    row = published_snn(T)
    assert row.published == published
    assert row.rate == pytest.approx(rate, abs=0.005)
    assert row.honest == pytest.approx(honest, abs=0.2)
    assert row.gmac == pytest.approx(6.484, abs=0.0005)
    assert row.parameters == 66_696_413 + 67 * T  # TSM adds a scale per convolution and time step
    # The formula, backwards: 3.54 M MACs of the first convolution, the rest times rate and T.
    first = 3 * 9 * 128 * 32 * 32
    assert 4.6e-9 * first + 0.9e-9 * row.rate * T * (row.gmac * 1e9 - first) == pytest.approx(published, rel=1e-9)


def test_the_layers_that_are_not_spiking():
    """41 of 92: 14 shortcuts, both tail convolutions, 2 layers of the time MLP, 22 projections, the first convolution;
    4.3 % of the MACs."""
    real, once = real_valued_layers()
    assert len(real) == 41
    assert sum(name.endswith("shortcut") for name in real) == 14
    assert sum("time_projection" in name for name in real) == 22
    assert {"encoder.conv1", "readout.conv", "readout.out_conv"} < real
    assert once == {name for name in real if "time" in name} | {"encoder.conv1"}


def layer(name, macs, *, binary, active=0, kind="conv", steps=2):
    if kind == "neuron":
        fired = (active,) * steps
        return NeuronCount(
            name=name, shape=(1, 1, 1), parameters=0, neurons=10, images=(1,) * steps, fired=fired, binary=binary
        )
    return SynapticCount(
        name=name, kind=kind, shape=(1, 1, 1), parameters=0, macs=macs, synapses=macs, inputs=10, images=(1,) * steps,
        active=(active,) * steps, sops=(macs * active // 10 if binary else 0,) * steps,
        multiplications=(0 if binary else macs,) * steps, binary=binary,
    )  # fmt: skip


def test_the_formula_and_its_difference_by_hand():
    """T = 2; a first convolution, two spiking layers at rates 0.2 and 0.4, a shortcut."""
    layers = [
        layer("time", 50, binary=False, kind="linear", steps=1, active=10),
        layer("first", 1000, binary=False, steps=1, active=10),
        layer("a", 3000, binary=True, active=2),
        layer("neuron", 0, binary=True, active=2, kind="neuron"),
        layer("shortcut", 500, binary=False, active=10),
        layer("b", 1000, binary=True, active=4),
    ]
    assert mean_rate(layers) == pytest.approx((0.2 * 3000 + 0.4 * 1000) / 4000)
    found = {difference.name: difference for difference in compare(layers, load_cost_model("45nm"))}
    assert found["first"].published == found["first"].honest == pytest.approx(4600)
    assert found["a"].published == found["a"].honest == pytest.approx(0.9 * 0.2 * 2 * 3000)
    assert found["shortcut"].published == pytest.approx(0.9 * 0.25 * 2 * 500)
    assert found["shortcut"].honest == pytest.approx(4.6 * 2 * 500)
    assert found["time"].honest == pytest.approx(4.6 * 50)
    assert next(iter(found)) == "shortcut" and found["shortcut"].reason == "real-valued input"
