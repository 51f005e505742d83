"""A data set and metrics that were registered from outside: trained on, evaluated, named in help and errors."""

import hashlib
import json

import numpy as np
import pytest
import torch

import sddpm as package
from sddpm.data import open_dataset
from sddpm.errors import UserError
from sddpm.evaluation import METRICS, EvaluationSettings, SamplingSettings, evaluate
from sddpm.training import load_config, train
from tests.helpers.measured_strangers import measured_strangers

TINY = ["data.dataset=stripes", "data.image_size=8", "model.base_channels=8", "model.channel_mult=[1]", "model.T=2",
        "model.num_res_blocks=1", "model.num_classes=2", "train.steps=1", "train.batch_size=8", "train.sample_every=0",
        "train.tensorboard=false"]  # fmt: skip


@pytest.fixture(scope="module")
def strangers():
    with measured_strangers():
        yield


@pytest.fixture(scope="module")
def run(strangers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stripes") / "run"
    train(load_config("digits", TINY), folder, device="cpu", progress=False)
    return folder


def test_a_registered_data_set_opens_by_any_spelling(strangers):
    data = open_dataset("Stripes", split="test")
    assert (len(data), data.channels, data.image_size, data.class_names) == (80, 1, 8, ("across", "down"))
    with pytest.raises(UserError, match="did you mean stripes"):
        open_dataset("stripe")
    with pytest.raises(UserError, match="choose train or test"):
        open_dataset("stripes", split="valid")


def test_both_are_measured_from_python(run, tmp_path):
    found = evaluate(
        run,
        metrics=("brightness", "first-class"),
        samples=60,
        split="test",
        sampling=SamplingSettings(num_inference_steps=1),
        work=tmp_path,
        device="cpu",
    )
    assert found.facts["reference"]["path"] == "stripes" and found.facts["reference"]["count"] == 80
    assert found.facts["near_copies"]["training_images"] == 90
    samples = torch.cat([torch.from_numpy(np.load(path)) for path in sorted((tmp_path / "samples").rglob("*.npy"))])
    assert len(samples) == 60
    mean = samples.double().mean() - open_dataset("stripes", split="test").gather(range(80)).double().mean()
    scores = {each.label: each.score for each in found.measurements}
    assert scores["brightness"].value == pytest.approx(abs(float(mean)), rel=1e-12)
    drawn = [int.from_bytes(hashlib.blake2b(f"class/{seed}".encode(), digest_size=8).digest(), "little") % 2
             for seed in range(60)]  # fmt: skip
    assert scores["first-class"].value == drawn.count(0) / 60


def test_both_are_measured_from_the_command_line(run, sddpm, tmp_path):
    code, out, err = sddpm("evaluate", run, "--metric", "brightness,first-class", "--samples", 60, "--steps", 1,
                           "--device", "cpu", "--out", "x.json")  # fmt: skip
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()] == ["brightness", "first-class", "near"]
    found = json.loads((tmp_path / "x.json").read_text())["metrics"]
    assert found["brightness"]["lower_is_better"] and not found["first-class"]["lower_is_better"]
    assert "brightness" in sddpm("evaluate", "--help")[1]
    code, out, err = sddpm("evaluate", "stripes:test", "--reference", "stripes", "--metric", "brightness",
                           "--samples", 80, "--no-copies")  # fmt: skip
    assert code == 0, err
    value = (
        open_dataset("stripes", split="test").images.double().mean() - open_dataset("stripes").images.double().mean()
    )
    assert float(out.split()[1]) == pytest.approx(abs(float(value)), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 49}, "brightness needs at least 50 samples, not 49"),
        ({"limit_reference": 49}, "brightness needs at least 50 reference images, not 49"),
        ({"metrics": ("first-class",), "sampling": SamplingSettings(class_label="none")}, "classes .* samples are not"),
        ({"metrics": ("dullness",)}, "unknown metric 'dullness': .*brightness.*register_metric"),
    ],
)
def test_what_a_metric_needs_is_checked_before_sampling(run, tmp_path, changes, message):
    base = {"metrics": ("brightness",), "samples": 60, "work": tmp_path, "device": "cpu"}
    with pytest.raises(UserError, match=message):
        evaluate(EvaluationSettings(str(run), **{**base, **changes}))
    assert not (tmp_path / "samples").exists()


def test_a_run_needs_its_data_set_registered(run, sddpm, tmp_path, monkeypatch):
    from sddpm.data import DATASETS

    monkeypatch.delitem(DATASETS, "stripes")
    monkeypatch.delitem(METRICS, "brightness")
    for command in (
        ("evaluate", run, "--metric", "kid", "--samples", 60, "--device", "cpu"),
        ("train", "--resume", "--out", run, "--set", "train.steps=2"),
    ):
        code, _, err = sddpm(*command)
        assert code == 2 and "unknown data set 'stripes'" in err and "register_dataset('stripes'" in err, err
    code, _, err = sddpm("evaluate", run, "--metric", "brightness")
    assert code == 2 and "unknown metric 'brightness'" in err


def test_names_that_are_taken_or_make_no_sense_are_refused(strangers):
    for name in ("mnist", "Fashion_MNIST", "stripes", "a name", ""):
        with pytest.raises(UserError):
            package.register_dataset(name, lambda request: None)
    for name, record in (
        ("fid", {}),
        ("a metric", {}),
        ("x", {"features": "colours"}),
        ("x", {"against": "words"}),
        ("x", {"distance": lambda reference: None, "lower_is_better": False}),
        ("x", {"distance": lambda reference: None, "features": "pixels"}),
    ):
        with pytest.raises(UserError):
            package.register_metric(name, lambda samples, reference: 0.0, **record)
    assert "x" not in METRICS and "a name" not in package.data.DATASETS
