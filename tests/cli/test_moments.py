"""`sddpm moments` on the bundled digits, and sampling with what it kept."""

import pytest
import torch
from PIL import Image

from sddpm.data import open_dataset, random_flip
from sddpm.pipelines import load_pipeline
from sddpm.pipelines.moments import measure_moments, read_moments
from sddpm.training import load_config, train

SMALL = [
    "data.image_size=8", "model.base_channels=8", "model.channel_mult=[1,2]", "model.num_res_blocks=1", "model.T=2",
    "diffusion.num_train_timesteps=20", "diffusion.beta_end=0.4", "train.batch_size=8", "train.steps=1",
    "train.sample_every=0", "train.tensorboard=false", "data.flip=true",
]  # fmt: skip


@pytest.fixture
def trained(tmp_path):
    train(load_config("digits", SMALL), tmp_path / "run", progress=False)
    return tmp_path / "run"


def test_measures_once_and_keeps(sddpm, trained, tmp_path):
    sample = ("sample", trained, "--count", 2, "--steps", 5, "--solver", "analytic-dpm", "--out", "x.png")
    code, _, err = sddpm(*sample)
    assert (code, err.splitlines()[-1]) == (
        2,
        "error: Analytic-DPM needs the moments of this model: run `sddpm moments MODEL` once",
    )
    code, out, _ = sddpm("moments", trained, "--samples", 10, "--batch-size", 4, "--plot", "h.png")
    assert code == 0 and "20 diffusion steps, from 10 images" in out
    kept = read_moments(trained)
    assert kept["samples"] == 10 and len(kept["h"]) == 20
    assert Image.open(tmp_path / "h.png").width > 500
    assert sddpm(*sample)[0] == 0
    code, _, err = sddpm("moments", trained, "--samples", 10)
    assert code == 2 and "--force" in err
    assert sddpm("moments", trained, "--samples", 10, "--seed", 1, "--force")[0] == 0
    assert read_moments(trained)["h"] != kept["h"]


def test_a_model_alone_needs_a_config(sddpm, trained):
    code, _, err = sddpm("moments", trained / "model", "--samples", 3)
    assert code == 2 and "--config CONFIG" in err
    assert sddpm("moments", trained / "model", "--samples", 3, "--config", trained / "config.yaml")[0] == 0


def test_a_model_of_classes_is_asked_for_those_of_the_data(sddpm, tmp_path):
    """After one step with a large learning rate its answers differ by class; and no class is what it says it is."""
    run = tmp_path / "run"
    settings = ("model.num_classes=10", "train.lr=0.3", "train.warmup_steps=0", "train.ema_decay=0")
    train(load_config("digits", [*SMALL, *settings]), run, progress=False)
    found = []
    for options in ((), ("--no-class",)):
        assert sddpm("moments", run, "--samples", 6, "--force", *options)[0] == 0
        found.append(read_moments(run))
    assert found[0]["h"] != found[1]["h"]
    pipeline = load_pipeline(run)
    data = open_dataset("digits", image_size=8)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(data), generator=generator)[:6]
    images = random_flip(data.gather(chosen), generator)
    for kept, labels in zip(found, (data.labels[chosen], torch.full((6,), 10)), strict=True):
        assert measure_moments(pipeline, [(images, labels)], count=6, progress=False).h == pytest.approx(kept["h"])


def test_no_class_is_for_models_of_classes(sddpm, trained, tmp_path):
    code, _, err = sddpm("moments", trained, "--samples", 3, "--no-class")
    assert code == 2 and err.splitlines()[-1].endswith("this model has none")
    train(load_config("digits", [*SMALL, "model.num_classes=10"]), tmp_path / "classes", progress=False)
    (tmp_path / "mine").mkdir()
    for i in range(3):
        Image.new("L", (8, 8), 50 * i).save(tmp_path / "mine" / f"{i}.png")
    config = tmp_path / "classes" / "config.yaml"
    config.write_text(config.read_text().replace("dataset: digits", "dataset: folder"))
    options = ("moments", tmp_path / "classes", "--data", tmp_path / "mine", "--samples", 3)
    code, _, err = sddpm(*options)
    assert code == 2 and "no class labels" in err.splitlines()[-1] and "--no-class" in err.splitlines()[-1]
    assert sddpm(*options, "--no-class")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--samples", 2), "at least 3 images"),
        (("--samples", 5000), "fewer than --samples 5,000"),
        (("--batch-size", 0), "--batch-size"),
        (("--seed", -1), "out of range"),
        (("--config", "mnist", "--data", "nowhere"), "nowhere"),
    ],
)
def test_bad_input(sddpm, trained, options, message):
    code, _, err = sddpm("moments", trained, *options)
    assert code == 2 and message in err.splitlines()[-1]
    assert read_moments(trained) is None
