"""The arithmetic of compiled networks on GPUs, layer by layer: on the GPU if there is one, else on the CPU.

As in test_exact.py, every layer is fed the spikes of the eager network in float64.
"""

from dataclasses import dataclass

import pytest
import torch

from sddpm.inference import compile_model
from sddpm.inference.arithmetic import arithmetic_for
from sddpm.inference.network import FoldedUNet
from tests.helpers.layer_by_layer import Feeding

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Fed(Feeding):
    """Compares what each layer of neurons fires with the truth, and hands on the truth."""

    native = False  # as on a GPU

    def feed(self, neuron, currents, fired):
        expected, spikes = (x.permute(0, 1, 3, 4, 2).to(DEVICE) for x in self.truth[self.names[id(neuron)]])
        assert currents.dtype in (self.current_dtype, self.dtype)
        assert fired.dtype == self.conv_dtype and fired.is_contiguous()
        self.errors[self.names[id(neuron)]] = float((currents - expected).std() / expected.std())
        self.flips[self.names[id(neuron)]] = float((fired != spikes).double().mean())
        return spikes.to(fired.dtype).contiguous()


@torch.no_grad()
def compare(exact, **options) -> tuple[Fed, float]:
    """Layer by layer, and the error of the answer, in deviations of the true one."""
    truth = {}
    for name, neuron in exact.neurons().items():
        neuron.register_forward_hook(lambda _m, inputs, out, name=name: truth.__setitem__(name, (inputs[0], out)))
    config = exact.config
    x = torch.randn(3, config["in_channels"], config["sample_size"], config["sample_size"], dtype=torch.float64)
    expected = exact(x, 700).sample
    for neuron in exact.neurons().values():
        neuron._forward_hooks.clear()
    single = exact.float().to(DEVICE)
    names = {id(neuron): name for name, neuron in single.neurons().items()}
    fed = Fed(DEVICE, torch.float32, names=names, truth=truth, **options)
    network = FoldedUNet(single, fed)
    network.graphs = None
    actual = network(x.float().to(DEVICE), 700).cpu()
    assert set(fed.errors) == set(truth)
    return fed, float((actual - expected).std() / expected.std())


def test_exact(variant):
    fed, error = compare(variant, precision="exact")
    assert max(fed.errors.values()) < 5e-6 and error < 5e-6
    assert max(fed.flips.values()) < 2e-3


def test_fast_rounds_what_layers_pass_on_to_bfloat16(variant):
    fed, error = compare(variant, precision="fast", half=True)
    assert 1e-4 < max(fed.errors.values()) < 2**-6  # currents are sums of up to a dozen layers, each rounded to 2^-9
    assert max(fed.flips.values()) < 0.03
    assert error < 2**-5


def test_which_arithmetic_a_device_gets():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert arithmetic_for(gpu, torch.float32, "fast").current_dtype == torch.bfloat16
    assert arithmetic_for(gpu, torch.float32, "exact").current_dtype == torch.float32
    assert arithmetic_for(cpu, torch.float32, "fast").current_dtype == torch.float32
    assert not arithmetic_for(gpu, torch.float32, "exact").native


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_tf32_is_off_where_results_are_exact(make_model, mode, monkeypatch):
    model = make_model().float()
    seen = []
    conv2d = torch.nn.functional.conv2d

    def watched(*given, **options):
        seen.append(torch.backends.cudnn.allow_tf32)
        return conv2d(*given, **options)

    monkeypatch.setattr(torch.nn.functional, "conv2d", watched)
    assert torch.backends.cudnn.allow_tf32
    network = FoldedUNet(model, Fed(torch.device("cpu"), torch.float32, mode, names={}, truth={}))
    monkeypatch.setattr(Fed, "feed", lambda _self, _neuron, _currents, fired: fired)
    network.neurons = []
    network(torch.randn(1, 1, 8, 8), 3)
    assert len(seen) > 10 and set(seen) == {mode == "fast"}
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.cuda
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_compiled_on_a_gpu_answers_like_on_the_cpu_without_spikes(make_model, mode):
    """No neuron fires: what is left is smooth, so that the whole network can be compared."""
    model = make_model(v_threshold=1e4)
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    expected = model(x, 9).sample
    compiled = compile_model(model.float().cuda(), mode)
    for _ in range(3):
        actual = compiled(x.float().cuda(), 9).sample
        assert actual.dtype == torch.float32
        assert (actual.cpu() - expected).std() < {"exact": 5e-6, "fast": 2**-5}[mode] * expected.std()
