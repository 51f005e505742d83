"""The U-Net's size, variants, thresholds, saving, and the configurations it refuses."""

import pytest
import torch

from sddpm import SpikingUNet2DModel, UserError

TINY = {"sample_size": 8, "base_channels": 4, "channel_mult": (1, 2), "num_res_blocks": 1}


def build(**overrides):
    torch.manual_seed(0)
    return SpikingUNet2DModel(**(TINY | overrides))


def calibrated(model, x):
    """Evaluation mode, with batch-norm statistics of x, so that neurons fire and differ by threshold."""
    model.train()
    with torch.no_grad():
        for _ in range(30):
            model(x, 10)
        model.readout.conv.weight.normal_()
    return model.eval()


def test_published_size():
    """66,696,413 parameters, which counts the frozen sinusoids; 51 layers of neurons."""
    with torch.device("meta"):
        model = SpikingUNet2DModel()
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters + 1000 * 128 == 66_696_413
    assert len(model.neurons()) == 51


def test_tsm_adds_268_scalars_at_T4():
    with torch.device("meta"):
        plain, tsm = SpikingUNet2DModel(), SpikingUNet2DModel(temporal_modulation=True)
    added = sum(p.numel() for p in tsm.parameters()) - sum(p.numel() for p in plain.parameters())
    assert added == 268


@pytest.mark.parametrize(
    "overrides",
    [
        {"T": 1},
        {"T": 7},
        {"neuron": "lif", "tau": 5.0, "decay_input": False},
        {"neuron": "plif"},
        {"v_reset": None},
        {"surrogate": "triangle", "detach_reset": True},
        {"temporal_modulation": True},
        {"patch_size": 2, "in_channels": 1, "out_channels": 1},
        {"in_channels": 5, "out_channels": 2},
        {"channel_mult": (2,), "num_res_blocks": 3},
        {"channel_mult": (1, 1, 3), "sample_size": 12},
    ],
)
def test_variants_train(overrides):
    """Every variant gives the right shape, and a gradient to every parameter."""
    model = build(**overrides)
    config = model.config
    torch.nn.init.normal_(model.readout.conv.weight)
    x = torch.randn(3, config.in_channels, config.sample_size, config.sample_size)
    out = model(x, torch.tensor([0, 500, 999])).sample
    assert out.shape == (3, config.out_channels, *x.shape[2:])
    out.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert sum(p.grad.abs().sum() for p in model.parameters()) > 0


def test_fresh_tsm_equals_the_plain_network():
    """p = 1 multiplies by one: the same bits."""
    plain, tsm = build().eval(), build(temporal_modulation=True).eval()
    missing, surplus = tsm.load_state_dict(plain.state_dict(), strict=False)
    assert not surplus and all(name.endswith(".p") for name in missing)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(plain(x, 3).sample, tsm(x, 3).sample)


def test_no_state_between_calls():
    model = build()
    x = torch.randn(4, 3, 8, 8)
    model = calibrated(model, x)
    with torch.no_grad():
        first = model(x, 10).sample
        model(torch.randn(3, 3, 8, 8), 999)  # another batch size, another step
        assert torch.equal(model(x, 10).sample, first)


def test_timestep_forms_agree():
    model = calibrated(build(), torch.randn(4, 3, 8, 8))
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        forms = [model(x, t).sample for t in (7, torch.tensor(7), torch.tensor([7]), torch.tensor([7, 7]))]
        assert all(torch.equal(form, forms[0]) for form in forms)
        assert not torch.equal(model(x, 8).sample, forms[0])
        assert torch.equal(model(x, 7, return_dict=False)[0], forms[0])


def test_channels_last_is_kept_and_changes_nothing():
    model = calibrated(build(), torch.randn(4, 3, 8, 8)).double()
    x = torch.randn(2, 3, 8, 8).double()
    with torch.no_grad():
        plain = model(x, 7).sample
        seen = []
        for neuron in model.neurons().values():
            neuron.register_forward_hook(lambda _m, _i, out: seen.append(out.flatten(0, 1)))
        last = model.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last), 7).sample
    assert torch.allclose(plain, last, rtol=1e-10, atol=1e-10)
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in seen)


# Thresholds


def test_thresholds_by_layer_name():
    x = torch.randn(4, 3, 8, 8)
    model = calibrated(build(), x)
    names = list(model.neurons())
    with torch.no_grad():
        before = model(x, 10).sample
        with model.at_threshold({"*": 0.9, "up.*": 0.8, "up.1.blocks.0.neuron1": 0.7}):
            values = {name: neuron.v_threshold for name, neuron in model.neurons().items()}
            assert not torch.equal(model(x, 10).sample, before)
        assert values["encoder.neuron"] == 0.9 and values["up.1.blocks.0.neuron1"] == 0.7
        assert all(values[name] == 0.8 for name in names if name.startswith("up.") and name != "up.1.blocks.0.neuron1")
        assert torch.equal(model(x, 10).sample, before)


def test_multiples_of_thresholds_keep_their_proportions():
    model = build()
    model.set_v_threshold({"*": 2.0, "middle.*": 3.0})
    with model.at_threshold({"*": "0.5x", "encoder.*": 0.7, "up.*": "2x"}):
        values = {name: neuron.v_threshold for name, neuron in model.neurons().items()}
    expected = {"middle": 1.5, "encoder": 0.7, "up": 4.0}
    assert values == {name: expected.get(name.split(".")[0], 1.0) for name in values}
    model.set_v_threshold("0.5x", "middle.*")
    assert model.neurons()["middle.0.neuron1"].v_threshold == 1.5


def test_thresholds_are_restored_after_an_error():
    model = build()
    with pytest.raises(ZeroDivisionError), model.at_threshold(0.5):
        _ = 1 / 0
    assert {neuron.v_threshold for neuron in model.neurons().values()} == {1.0}


def test_thresholds_are_saved(tmp_path):
    model = build()
    model.set_v_threshold(0.997)
    assert model.config.v_threshold == 0.997
    model.set_v_threshold(1.003, "middle.*")
    model.save_pretrained(tmp_path)
    loaded = SpikingUNet2DModel.from_pretrained(tmp_path)
    assert {n: m.v_threshold for n, m in loaded.neurons().items()} == {
        n: 1.003 if n.startswith("middle.") else 0.997 for n in model.neurons()
    }


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        (0.0, "positive"),
        (-1, "positive"),
        (float("nan"), "positive"),
        ("1", "positive"),
        ("x", "positive"),
        ("-0.9x", "positive"),
        ({"*": "infx"}, "positive"),
        ({"nowhere.*": 1.0}, "no neuron layer matches 'nowhere.*'"),
    ],
)
def test_bad_thresholds(thresholds, message):
    model = build()
    with pytest.raises(UserError, match=message.replace("*", r"\*")), model.at_threshold(thresholds):
        pass
    assert {neuron.v_threshold for neuron in model.neurons().values()} == {1.0}


def test_saved_and_loaded_is_the_same(tmp_path):
    x = torch.randn(4, 3, 8, 8)
    model = calibrated(build(neuron="plif", temporal_modulation=True, channel_mult=(1, 2)), x)
    model.save_pretrained(tmp_path)
    loaded = SpikingUNet2DModel.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(x, 10).sample, model(x, 10).sample)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"T": 0}, "T must be a whole number of at least 1, got 0"),
        ({"T": 2.5}, "T must be a whole number"),
        ({"base_channels": 5}, "base_channels must be even"),
        ({"sample_size": 9}, "must be a multiple of 2"),
        ({"sample_size": 8, "patch_size": 8}, "must be a multiple of 16"),
        ({"channel_mult": ()}, "channel_mult"),
        ({"channel_mult": (1, 0)}, "channel_mult"),
        ({"num_res_blocks": 0}, "num_res_blocks"),
        ({"neuron": "izhikevich"}, "unknown neuron 'izhikevich': choose one of if, lif, plif"),
        ({"surrogate": "tanh"}, "unknown surrogate 'tanh'"),
        ({"surrogate_alpha": 0.0}, "surrogate_alpha, the inverse width, must be a finite number above 0"),
        ({"neuron": "lif", "tau": 0.5}, "tau"),
        ({"v_threshold": 0.0}, "v_threshold must be a positive number"),
        ({"readout_decay": 0.0}, "readout_decay"),
    ],
)
def test_bad_configurations(overrides, message):
    with pytest.raises(UserError, match=message):
        build(**overrides)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 8, 8), (2, 3, 7, 8)])
def test_bad_samples(shape):
    with pytest.raises(UserError):
        build()(torch.zeros(shape), 0)
