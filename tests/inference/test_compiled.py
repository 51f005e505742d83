"""The compiled network is the network: in float64 to rounding, in every variant, at any threshold, always current."""

import copy
import pickle

import pytest
import torch

from sddpm.conversion import from_reference
from sddpm.errors import UserError
from sddpm.inference import compile_model
from sddpm.training.firing_rates import record_rates

CASES = ["sddpm_rgb16_T4", "sddpm_grey32_T8", "sdm_tsm_rgb16_T4"]


def noise(model, count=3):
    size = model.config["sample_size"]
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, model.config["in_channels"], size, size, dtype=model.dtype, generator=generator)


def difference(actual, expected):
    return ((actual.double() - expected).abs().max() / expected.std()).item()


@torch.no_grad()
def test_every_variant_in_float64(variant):
    compiled, x = compile_model(variant), noise(variant)
    for t in (0, 999):
        with record_rates(variant) as rates:
            expected = variant(x, t).sample
        assert rates.mean.keys() == variant.neurons().keys()
        assert min(rates.mean.values()) > 0.01 and max(rates.mean.values()) < 0.99  # or it would say little
        assert difference(compiled(x, t).sample, expected) < 1e-10
        assert difference(compiled(x, torch.tensor(t), return_dict=False)[0], expected) < 1e-10


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_the_reference_s_own_outputs(vectors_dir, name):
    case = torch.load(vectors_dir / f"{name}.case.pt", weights_only=True)
    T, size = case["config"]["timestep"], case["config"]["size"]
    model = from_reference(vectors_dir / f"{name}.ckpt.pt", T=T, sample_size=size).model.double()
    compiled, x = compile_model(model), case["x"].double()
    assert difference(compiled(x, case["t"]).sample, case["eval_f64"]) < 1e-9
    for threshold in (0.997, 1.003):
        expected = case[f"eval_th{threshold}_f64"]
        with compiled.at_threshold(threshold):
            assert difference(compiled(x, case["t"]).sample, expected) < 1e-9
    model.set_v_threshold(0.997)
    assert difference(compiled(x, case["t"]).sample, case["eval_th0.997_f64"]) < 1e-9


@torch.no_grad()
def test_a_diffusion_step_for_every_image(make_model):
    model = make_model()
    x, t = noise(model, 5), torch.tensor([3, 999, 3, 0, 500])
    assert difference(compile_model(model)(x, t).sample, model(x, t).sample) < 1e-10


@torch.no_grad()
def test_other_sizes_of_image(make_model):
    model = make_model()
    x = torch.randn(2, 1, 4, 12, dtype=torch.float64)
    assert difference(compile_model(model)(x, 7).sample, model(x, 7).sample) < 1e-10
    with pytest.raises(UserError, match="multiples of 2"):
        compile_model(model)(torch.randn(2, 1, 5, 4), 7)


@torch.no_grad()
def test_thresholds_act_without_compiling_again(make_model):
    model = make_model()
    compiled, x = compile_model(model), noise(model)
    folded = compiled._folded
    for thresholds in (0.8, {"up.*": 0.7, "middle.0.neuron1": 1.3}):
        with compiled.at_threshold(thresholds):
            inside = compiled(x, 10).sample
        with model.at_threshold(thresholds):
            assert difference(inside, model(x, 10).sample) < 1e-10
    compiled.set_v_threshold(1.1, "down.*")
    assert difference(compiled(x, 10).sample, model(x, 10).sample) < 1e-10
    assert compiled.neurons()["down.0.blocks.0.neuron1"].v_threshold == 1.1
    assert compiled._folded is folded


def change_in_place(model):
    model.middle[0].conv1.weight.mul_(1.5)


def change_statistics(model):
    model.up[0].blocks[0].norm2.running_mean.add_(0.5)


def change_time(model):
    model.time_embedding.table.mul_(0.5)


def load_others(model):
    model.load_state_dict({name: 1.1 * value for name, value in model.state_dict().items()})


def assign_others(model):
    model.load_state_dict({name: 1.1 * value for name, value in model.state_dict().items()}, assign=True)


def replace_parameter(model):
    model.encoder.conv2.weight = torch.nn.Parameter(0.5 * model.encoder.conv2.weight)


def replace_layer(model):
    model.readout.conv = copy.deepcopy(model.readout.conv)
    model.readout.conv.weight.mul_(2)


def train_a_step(model):
    with torch.enable_grad():
        model(noise(model), 5).sample.square().mean().backward()
    torch.optim.Adam(model.parameters(), lr=0.1).step()


def put_elsewhere(model):
    model.middle[1].conv2.weight.data = 2 * model.middle[1].conv2.weight.data


CHANGES = [change_in_place, change_statistics, change_time, load_others, assign_others]
CHANGES += [replace_parameter, replace_layer, train_a_step, put_elsewhere]


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_noticed(make_model, change):
    model = make_model()
    compiled, x = compile_model(model), noise(model)
    before = compiled(x, 500).sample
    change(model)
    after = compiled(x, 500).sample
    assert difference(after, model(x, 500).sample) < 1e-10
    assert not torch.equal(after, before)


@torch.no_grad()
def test_what_escapes_notice_needs_a_refresh(make_model):
    model = make_model()
    compiled, x = compile_model(model), noise(model)
    model.middle[0].conv1.weight.data.mul_(1.5)  # leaves address and version as they were
    compiled.refresh()
    assert difference(compiled(x, 500).sample, model(x, 500).sample) < 1e-10


@torch.no_grad()
def test_precision_follows_the_model(make_model):
    model = make_model()
    compiled, x = compile_model(model), noise(model)
    model.float()
    assert compiled(x.float(), 0).sample.dtype == torch.float32
    assert compiled.dtype == torch.float32
    model.bfloat16()
    with pytest.raises(UserError, match=r"its weights are torch\.bfloat16"):
        compiled(x.bfloat16(), 0)


def test_nothing_is_kept_between_calls(make_model):
    model = make_model().float()
    compiled = compile_model(model)
    x, others = noise(model), torch.randn(7, 1, 16, 8)
    first = compiled(x, 100).sample.clone()
    other = compiled(others, 5).sample
    kept = other.clone()
    assert torch.equal(compiled(x, 100).sample, first)
    assert torch.equal(other, kept)
    assert not compiled(x.requires_grad_(), 100).sample.requires_grad


@torch.no_grad()
def test_a_copy_and_a_pickle_fold_for_themselves(make_model):
    model = make_model()
    compiled, x = compile_model(model), noise(model)
    expected = compiled(x, 1).sample
    for other in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
        assert torch.equal(other(x, 1).sample, expected)
        other.unet.middle[0].conv1.weight.mul_(2)
    assert torch.equal(compiled(x, 1).sample, expected)


class OtherConv(torch.nn.Conv2d):
    pass


def test_what_cannot_be_compiled(make_model):
    with pytest.raises(UserError, match="Linear is not a SpikingUNet2DModel"):
        compile_model(torch.nn.Linear(1, 1))
    model = make_model()
    with pytest.raises(UserError, match="unknown mode 'quick'"):
        compile_model(model, "quick")
    with pytest.raises(UserError, match=r"fast mode: its weights are torch\.float64"):
        compile_model(model, "fast")
    compiled = compile_model(model)
    handle = model.middle[0].neuron1.register_forward_hook(lambda *_: None)
    for attempt in (lambda: compile_model(model), lambda: compiled(noise(model), 0)):
        with pytest.raises(UserError, match=r"middle\.0\.neuron1 has a forward hook"):
            attempt()
    handle.remove()
    compiled(noise(model), 0)
    model.middle[0].conv1.__class__ = OtherConv
    with pytest.raises(UserError, match=r"middle\.0\.conv1 is a OtherConv"):
        compile_model(model)
    model = make_model()
    model.middle[0].conv1.float()
    with pytest.raises(UserError, match="several dtypes or devices"):
        compile_model(model)
    with torch.inference_mode():
        loaded = make_model()
    with pytest.raises(UserError, match="made in inference mode"):
        compile_model(loaded)
    with pytest.raises(UserError, match="it is on meta"):
        compile_model(make_model().to("meta"))
