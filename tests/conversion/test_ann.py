"""Networks with quantised ReLUs and the spikes made of them: what must be exact is, what is not is measured."""

import copy
import json

import pytest
import torch
from PIL import Image

from sddpm.conversion.ann import convert_ann, quantized_layers, receivers
from sddpm.conversion.ann_errors import conversion_errors, outputs
from sddpm.conversion.finetuning import finetune_blocks
from sddpm.data import open_dataset
from sddpm.errors import UserError
from sddpm.models import ANNUNet2DModel, SpikingUNet2DModel
from sddpm.neurons import SpikingNeuron
from sddpm.neurons.quantized import quantize
from sddpm.pipelines import load_pipeline
from sddpm.training import load_config, train

SMALL = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "base_channels": 8, "channel_mult": (1, 2)}


def network(bits=2, **options):
    """With batch norms that have seen data, steps that differ, and a readout that is not near zero."""
    torch.manual_seed(0)
    options = {**SMALL, "num_res_blocks": 1, "neuron": "quantized_relu", "T": 1, "pure": True, **options}
    model = SpikingUNet2DModel(**options, activation_bits=bits).double()
    for i, layer in enumerate(quantized_layers(model).values()):
        layer.log_step.data += 0.1 * (i % 5) - 0.4
    torch.nn.init.xavier_uniform_(model.readout.conv.weight)
    model.readout.conv.bias.data.fill_(0.3)
    for _ in range(30):
        model(*noise(8))
    return model.eval()


def noise(count, seed=None):
    if seed is not None:
        torch.manual_seed(seed)
    return torch.randn(count, 1, 8, 8, dtype=torch.float64), torch.randint(1000, (count,))


@pytest.fixture(scope="module")
def ann():
    return network()


def test_every_tensor_finds_its_place(ann):
    spiking = convert_ann(ann)
    own, before = spiking.state_dict(), ann.state_dict()
    assert set(own) == {name for name in before if not name.endswith(".log_step")}
    scaled = {f"{conv}.weight" for group in receivers(ann).values() for conv in group} | {"readout.conv.bias"}
    assert [name for name in own if not torch.equal(own[name], before[name])] == [n for n in own if n in scaled]
    assert {n: neuron.v_threshold for n, neuron in spiking.neurons().items()} == {
        n: layer.step.item() for n, layer in quantized_layers(ann).items()
    }
    config = spiking.config
    assert (config["T"], config["neuron"], config["v_reset"], config["initial_charge"]) == (3, "if", None, 0.5)


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 7])
def test_with_perfect_neurons_it_is_the_same_network(levels, monkeypatch):
    """Neurons that fired as often as the mean of their currents asks for would give the ANN's answer, to rounding."""
    ann = network(activation_levels=levels)
    spiking = convert_ann(ann)
    assert spiking.config["T"] == levels

    def perfect(neuron, currents):
        s, T = neuron.v_threshold, len(currents)
        return (quantize(currents.mean(0), s, T) / s).expand_as(currents)

    monkeypatch.setattr(SpikingNeuron, "forward", perfect)
    monkeypatch.setattr(
        "sddpm.models.spiking_conv.normalize_and_fire",
        lambda norm, neuron, x, shift=None: neuron(norm(x) + (0 if shift is None else shift[:, :, None, None])),
    )
    x, t = noise(4, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(spiking(x, t).sample, ann(x, t).sample, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("signed", [False, True])
def test_first_layer_is_exact_and_the_report_says_so(ann, signed):
    spiking = convert_ann(ann, signed=signed)
    batches = [noise(16, seed=2)]
    errors = conversion_errors(ann, spiking, batches)
    first, *others = errors.layers
    assert first.name == "encoder.neuron"
    assert (first.relative_error < 1e-12, first.differing) == (True, 0.0)
    assert all(0 < e.differing < 0.6 and 0 < e.relative_error < 1.5 for e in others)
    assert [e.name for e in errors.layers] == list(spiking.neurons())
    assert errors.images == 16


def test_errors_are_what_they_say(ann):
    """The last layer's numbers, and the prediction's, computed anew from what the networks answer."""
    spiking = convert_ann(ann)
    x, t = noise(8, seed=3)
    last = "readout.neuron"
    with torch.no_grad(), outputs(ann, [last]) as wanted, outputs(spiking, [last]) as got:
        a, b = ann(x, t).sample, spiking(x, t).sample
    s, spikes, q = spiking.neurons()[last].v_threshold, got[last], wanted[last][0]
    found = conversion_errors(ann, spiking, [(x[:3], t[:3]), (x[3:], t[3:])])
    layer = found.layers[-1]
    assert layer.relative_error == pytest.approx(float((spikes.mean(0) * s - q).norm() / q.norm()))
    assert layer.differing == pytest.approx(float(((spikes.mean(0) * s - q).abs() > s / 6).double().mean()))
    assert layer.firing_rate == pytest.approx(float(spikes.mean()))
    assert found.prediction == pytest.approx(float((b - a).norm() / a.norm()))


@pytest.mark.parametrize("T", [6, 9])
def test_neurons_with_more_levels_differ_where_they_are_nearer_to_another_count(ann, T):
    """A neuron differs if the mean of its spikes is more than half a spike from the activation."""
    spiking, (x, t) = convert_ann(ann, T=T), noise(8, seed=2)
    errors = conversion_errors(ann, spiking, [(x, t)])
    with torch.no_grad(), outputs(ann, ["encoder.neuron"]) as wanted, outputs(spiking, ["encoder.neuron"]) as got:
        ann(x, t), spiking(x, t)
    step = quantized_layers(ann)["encoder.neuron"].step
    mean, activation = got["encoder.neuron"].mean(0), wanted["encoder.neuron"][0] / step
    assert errors.layers[0].differing == pytest.approx(float(((mean - activation).abs() > 0.5 / T).double().mean()))
    assert 0 < errors.layers[0].differing < 0.5


def test_errors_grow_with_what_is_done_to_the_network(ann):
    batches = [noise(16, seed=4)]
    answers = []
    for amount in (0.0, 0.5, 2.0):
        spiking = convert_ann(ann)
        spiking.encoder.norm2.bias.data += amount
        answers.append(conversion_errors(ann, spiking, batches).prediction)
    assert answers == sorted(answers) and answers[2] > 1.1 * answers[0]


def test_signed_spikes_come_closer(ann):
    batches = [noise(16, seed=5)]
    plain, signed = (conversion_errors(ann, convert_ann(ann, signed=s), batches) for s in (False, True))
    mean = [sum(e.relative_error for e in found.layers) for found in (plain, signed)]
    assert mean[1] < mean[0]
    assert signed.prediction < plain.prediction


def test_more_time_steps_for_the_same_levels_come_closer(ann):
    """At four times T the same thresholds give finer levels and the errors of timing average out."""
    x, t = noise(8, seed=6)
    answers = []
    for factor in (1, 4, 16):
        spiking = convert_ann(ann)
        spiking.encoder.T = 3 * factor
        spiking.readout.conv.weight.data /= factor
        spiking.readout.conv.bias.data /= factor
        with torch.no_grad():
            answers.append(spiking(x, t).sample)
    assert (answers[1] - answers[2]).norm() < 0.6 * (answers[0] - answers[2]).norm()


def test_the_model_that_is_converted_stays_as_it_is(ann):
    before = copy.deepcopy(ann.state_dict())
    convert_ann(ann)
    assert all(torch.equal(value, before[name]) for name, value in ann.state_dict().items())


def test_fine_tuning_lessens_the_error_on_what_it_has_not_seen(ann):
    """Statistics of batch norms, thresholds and the embedding of the time stay."""
    spiking = convert_ann(ann)
    weights = copy.deepcopy(spiking.state_dict())
    losses = []
    finetune_blocks(
        ann,
        spiking,
        (noise(16) for _ in range(60)),
        steps=60,
        lr=5e-3,
        callback=lambda step, loss: losses.append((step, loss)),
    )
    assert [step for step, _ in losses] == list(range(1, 61))
    assert sum(loss for _, loss in losses[-10:]) < 0.9 * sum(loss for _, loss in losses[:10])
    unseen = [noise(32, seed=7)]
    before, after = (conversion_errors(ann, model, unseen) for model in (convert_ann(ann), spiking))
    assert after.prediction < 0.9 * before.prediction
    now = spiking.state_dict()
    changed = {name for name in now if not torch.equal(now[name], weights[name])}
    assert not any("running_" in name or name.startswith("time_embedding") for name in changed)
    assert "encoder.conv1.weight" in changed and "readout.conv.weight" in changed
    assert not spiking.training and not any(module._forward_pre_hooks for module in spiking.modules())


def test_no_gradient_passes_from_block_to_block(ann):
    """A first block that is asked for nothing (its wanted output is its own) stays as it is, whatever the others do."""
    spiking = convert_ann(ann)
    x, t = noise(4, seed=8)
    twin = copy.deepcopy(ann)
    with torch.no_grad(), outputs(spiking, ["encoder"]) as own:
        spiking(x, t)
    twin.encoder.forward = lambda image: own["encoder"].mean(0, keepdim=True)
    before = copy.deepcopy(spiking.encoder.state_dict())
    finetune_blocks(twin, spiking, [(x, t)], steps=1, lr=1e-3)
    drift = max(float((spiking.encoder.state_dict()[name] - before[name]).abs().max()) for name in before)
    assert drift == 0 or drift < 1e-8


@pytest.mark.parametrize(
    "model",
    [SpikingUNet2DModel(**SMALL, num_res_blocks=1, T=2), ANNUNet2DModel(**SMALL, num_res_blocks=1)],
    ids=["spiking", "ann"],
)
def test_other_models_are_refused(model):
    with pytest.raises(UserError, match=r"has no quantised activations to convert: train one with model\.kind=quanti"):
        convert_ann(model)


@pytest.mark.parametrize("options", [{"T": 2}, {"pure": False}, {"temporal_modulation": True}])
def test_quantised_networks_that_cannot_be(options):
    options = {**SMALL, "neuron": "quantized_relu", "T": 1, "pure": True, **options}
    with pytest.raises(UserError, match="needs pure = true, T = 1 and no temporal modulation"):
        SpikingUNet2DModel(**options)


# The command


TINY = [
    "model.kind=quantized", "data.image_size=8", "model.base_channels=8", "model.channel_mult=[1,2]",
    "model.num_res_blocks=1", "diffusion.num_train_timesteps=20", "diffusion.beta_end=0.4", "train.batch_size=8",
    "train.steps=3", "train.sample_every=0", "train.tensorboard=false", "train.precision=float32",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    train(load_config("digits", TINY), folder / "run", progress=False)
    return folder / "run"


def test_converted_model_samples_and_counts_as_any_other(sddpm, trained, tmp_path):
    command = (
        "convert-ann",
        trained,
        "spikes",
        "--finetune-steps",
        2,
        "--batch-size",
        4,
        "--report",
        "errors.json",
        "--plot",
        "e.png",
    )
    code, out, err = sddpm(*command, "--report-images", 8)
    assert code == 0, err
    assert "saved spikes: 20 layers of IF neurons, T = 3" in out and "step 2/2" in err
    report = json.loads((tmp_path / "errors.json").read_text())
    assert len(report["converted"]["layers"]) == len(report["fine-tuned"]["layers"]) == 20
    assert report["converted"]["layers"][0]["differing"] < 1e-3 < report["converted"]["layers"][-1]["differing"]
    assert report["converted"]["prediction"] != report["fine-tuned"]["prediction"]

    assert Image.open("e.png").width > 500

    model = load_pipeline("spikes").unet
    assert isinstance(model, SpikingUNet2DModel) and model.config["initial_charge"] == 0.5
    assert len(set(model.config["v_threshold"].values())) > 1

    assert sddpm("sample", "spikes", "--count", 2, "--steps", 5, "--out", "x.png")[0] == 0
    code, _, err = sddpm("sample", "spikes", "--count", 2, "--steps", 5, "--engine", "exact", "--out", "y.png")
    assert code == 0, err
    code, out, _ = sddpm("energy", "spikes", "--count", 1, "--steps", 2, "--json", "energy.json")
    assert code == 0
    assert sddpm("info", "spikes")[0] == 0


def test_networks_with_classes_receive_the_labels_of_the_images(sddpm, tmp_path, monkeypatch):
    """Both networks, in the fine-tuning and in the report, in the order of the model's classes."""
    train(load_config("digits", [*TINY, "model.num_classes=10"]), tmp_path / "run", progress=False)
    seen, forward = [], SpikingUNet2DModel.forward

    def watched(self, sample, timestep, class_labels=None, *rest):
        seen.append((self.config["neuron"], class_labels))
        return forward(self, sample, timestep, class_labels, *rest)

    monkeypatch.setattr(SpikingUNet2DModel, "forward", watched)
    options = ("--finetune-steps", 1, "--batch-size", 6, "--report", "errors.json", "--report-images", 6)
    code, _, err = sddpm("convert-ann", "run", "spikes", *options)
    assert code == 0, err
    dataset = open_dataset("digits", image_size=8)
    expected = []
    for seed in (0, 1, 0):  # the report, one step of fine-tuning, the report again
        chosen = torch.randint(len(dataset), (6,), generator=torch.Generator().manual_seed(seed))
        expected += 2 * [dataset.labels[chosen].tolist()]
    assert [labels.tolist() for _, labels in seen] == expected
    assert [neuron for neuron, _ in seen] == 3 * ["quantized_relu", "if"]


def test_signed_spikes_are_operations_not_multiplications(trained, sddpm, tmp_path):
    """An operation a spike of either sign: the account knows no multiplication behind the first convolution."""
    from sddpm.energy.operations import counting

    assert sddpm("convert-ann", trained, "signed", "--signed")[0] == 0
    model = load_pipeline("signed").unet.eval()
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), outputs(model, ["readout.neuron"]) as fired, counting(model) as counter:
        model(x, 3)
        counts = {count.name: count for count in counter.take()}
    assert {name for name, count in counts.items() if count.kind == "conv" and not count.binary} == {"encoder.conv1"}
    spikes = fired["readout.neuron"]
    assert counts["readout.neuron"].fired == tuple(int(now.abs().sum()) for now in spikes)
    # Each spike inside the image goes to 3 x 3 x 1 outputs, at an edge to fewer.
    inside = int(spikes[..., 1:-1, 1:-1].abs().sum())
    assert 9 * inside <= counts["readout.conv"].ac <= 9 * int(spikes.abs().sum())


def test_samples_of_the_quantised_network_and_of_the_ann_way(sddpm, trained):
    code, _, err = sddpm("sample", trained, "--count", 2, "--steps", 5, "--v-threshold", "0.9", "--out", "x.png")
    assert (code, err.splitlines()[-1]) == (2, "error: v_threshold was given, but this model has no spiking neurons")
    assert sddpm("sample", trained, "--count", 2, "--steps", 5, "--out", "x.png")[0] == 0
    assert sddpm("energy", trained, "--count", 1, "--steps", 2)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--finetune-steps", "-1"], "--finetune-steps must be at least 0, not -1"),
        (["--batch-size", "0"], "--batch-size must be at least 1, not 0"),
        (["--lr", "0"], "--lr must be above 0"),
        (["--report", "r.json", "--report-images", "0"], "--report-images must be at least 1"),
        (["--finetune-steps", "1", "--data", "nowhere"], "nowhere"),
        (["--lr", "0.1"], "--lr is only for --finetune-steps N: leave it out"),
        (["--lr", "0.1", "--report", "r.json"], "--lr is only for --finetune-steps N"),
        (["--finetune-steps", "1", "--report-images", "4"], "--report-images is only for --report and --plot"),
        (["--batch-size", "4"], "--batch-size is only for --finetune-steps N, --report and --plot: leave it out"),
        (["--config", "digits"], "--config is only for --finetune-steps N, --report and --plot"),
        (["--data", "folder"], "--data is only for --finetune-steps N, --report and --plot"),
        (["--seed", "3"], "--seed is only for --finetune-steps N, --report and --plot"),
    ],
)
def test_bad_input_is_one_line(sddpm, trained, tmp_path, arguments, words):
    code, _, err = sddpm("convert-ann", trained, "out", *arguments)
    assert code == 2 and err.splitlines()[-1].startswith("error: ") and words in err
    assert not (tmp_path / "out").exists()


def test_what_exists_is_kept_and_a_bare_model_needs_a_config(sddpm, trained, tmp_path):
    (tmp_path / "out").mkdir()
    code, _, err = sddpm("convert-ann", trained, "out")
    assert (code, "out already exists" in err) == (2, True)
    code, _, err = sddpm("convert-ann", trained / "model", "new", "--report", "r.json")
    assert (code, "give its training data with --config CONFIG" in err) == (2, True)
    code, _, err = sddpm("convert-ann", trained / "model", "new")
    assert code == 0, err
    code, _, err = sddpm("convert-ann", "new", "again")
    assert (code, err.count("\n")) == (2, 1) and "no quantised activations" in err
