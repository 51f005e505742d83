"""`sddpm moments` on the bundled digits, and sampling with what it kept."""

import pytest
from PIL import Image

from sddpm.pipelines.moments import read_moments
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
