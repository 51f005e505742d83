"""Machines that lack something: each implementation is forced, and computes the same network."""

import logging

import pytest
import torch

from sddpm.inference import compile_model, dense
from sddpm.inference.dense import Dense
from sddpm.inference.engine import Engines
from sddpm.inference.kernels import firing, native_conv, spike_conv
from sddpm.inference.kernels.spike_conv import VARIABLE, choices, unsupported
from tests.helpers.layer_by_layer import assert_exact
from tests.helpers.strangers import strangers

HERE = [kernel for kernel in choices() if unsupported(kernel) is None]
NATIVE = [kernel for kernel in HERE if kernel not in ("onednn", "float32")]
CONFIGS = {"if": {}, "tsm": {"temporal_modulation": True, "T": 3}, "plif": {"neuron": "plif", "v_reset": None}}


@pytest.fixture
def nothing_built(monkeypatch):
    """As on a machine without a C++ compiler."""
    for module in (dense, firing, native_conv):
        monkeypatch.setattr(module, "library", lambda: None)
    spike_conv._best.cache_clear()
    yield
    spike_conv._best.cache_clear()


@pytest.mark.parametrize("kernel", choices())
@pytest.mark.parametrize("name", CONFIGS)
def test_every_convolution_makes_an_exact_network(make_model, monkeypatch, name, kernel):
    if (reason := unsupported(kernel)) is not None:
        pytest.skip(f"{kernel}: {reason}")
    monkeypatch.setenv(VARIABLE, kernel)
    assert_exact(make_model(**CONFIGS[name]), torch.randn(2, 1, 8, 8), 400)


@pytest.mark.parametrize("kernel", HERE)
@pytest.mark.parametrize("kind", [{"neuron": "squared"}, {"surrogate": "bell"}])
def test_neurons_and_surrogates_that_the_kernels_do_not_know(make_model, monkeypatch, kernel, kind):
    """Spikes do not depend on a surrogate: the kernels make those of any neuron that they know."""
    monkeypatch.setenv(VARIABLE, kernel)
    with strangers():
        model = make_model(**kind)
        assert firing.can_fire(model.encoder.neuron) == ("surrogate" in kind and bool(NATIVE))
        assert_exact(model, torch.randn(2, 1, 8, 8), 400)


@pytest.mark.skipif(len(NATIVE) < 2, reason="one native kernel at most")
@torch.no_grad()
def test_the_same_bits_whatever_instructions_convolve(make_model, monkeypatch):
    model, x, found = make_model().float(), torch.randn(3, 1, 8, 8), []
    for kernel in NATIVE:
        monkeypatch.setenv(VARIABLE, kernel)
        found.append(compile_model(model)(x, 400).sample)
    assert all(torch.equal(each, found[0]) for each in found[1:])


@pytest.mark.parametrize("name", CONFIGS)
def test_exact_without_native_kernels(make_model, nothing_built, name):
    assert not Dense.available()
    assert_exact(make_model(**CONFIGS[name]), torch.randn(2, 1, 8, 8), 400)


def test_without_native_kernels_compiling_is_asked_for_or_not_done(make_model, nothing_built, caplog):
    model = make_model().float()
    engines = Engines()
    with caplog.at_level(logging.WARNING, logger="sddpm"):
        for _ in range(2):
            assert engines.choose(model, "auto") is model
    lines = [record.getMessage() for record in caplog.records if record.name == "sddpm.inference.engine"]
    assert lines == ["sampling without compiling the model: it would not be faster without the native kernels"]
    assert engines.choose(model, "exact") is not model
