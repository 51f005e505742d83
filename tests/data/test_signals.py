"""Signals from files, the process whose spectrum is known, and a model that learns them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sddpm.cli.main import app
from sddpm.data.signals import (
    GP_SMOOTHNESS,
    GP_STD,
    SignalRange,
    gaussian_process,
    gaussian_process_spectrum,
    open_signals,
)
from sddpm.errors import UserError
from sddpm.pipelines import load_pipeline
from sddpm.training import load_config, train

TINY = [
    "model.base_channels=8", "model.channel_mult=[1,2]", "model.num_res_blocks=1", "model.T=2",
    "train.batch_size=8", "train.steps=4", "train.warmup_steps=2", "train.log_every=1", "train.sample_every=4",
    "train.sample_count=2", "train.sample_steps=2", "train.checkpoint_every=4", "train.tensorboard=false",
]  # fmt: skip


def test_the_process_has_its_covariance():
    """The empirical covariance of 20,000 signals, entry by entry, within 5 standard errors (Isserlis' theorem)."""
    x = gaussian_process(20_000, seed=3)[:, 0]
    distance = torch.arange(64)[:, None] - torch.arange(64)[None, :]
    expected = GP_STD**2 * torch.exp(-2 * torch.sin(torch.pi * distance.double() / 64) ** 2 / GP_SMOOTHNESS**2)
    error = ((expected**2 + GP_STD**4) / len(x)) ** 0.5
    assert ((x.T @ x / len(x) - expected).abs() < 5 * error).all()
    assert torch.allclose(gaussian_process_spectrum(), torch.from_numpy(np.linalg.eigvalsh(expected)).sort(
        descending=True)[0][[0, *range(1, 64, 2)]], atol=1e-10)  # fmt: skip
    # A circulant's eigenvalues: the constant's once, then each frequency's twice (and the last once).


def test_files_are_scaled_to_the_models_range_and_back(tmp_path):
    signals = np.random.default_rng(0).uniform(-40, 360, (5, 2, 8))
    np.savez(tmp_path / "a.npz", labels=np.arange(5) % 3, signals=signals)
    np.save(tmp_path / "b.npy", signals[:, 0].astype(np.float32))
    dataset = open_signals("signals", tmp_path / "a.npz")
    assert (len(dataset), dataset.channels, dataset.image_size) == (5, 2, 8) and dataset.labels.tolist() == [
        0,
        1,
        2,
        0,
        1,
    ]
    batch = dataset.gather([3, 1])
    assert batch.min() >= -1 and batch.max() <= 1 and dataset.signals.min() == -1 and dataset.signals.max() == 1
    back = dataset.signal_range.from_unit((batch + 1) / 2)
    np.testing.assert_allclose(back, signals[[3, 1]], atol=1e-4)
    assert open_signals("signals", tmp_path / "b.npy", limit=2).signals.shape == (2, 1, 8)
    assert SignalRange(-2.0, 6.0).to_model(torch.tensor([-2.0, 2.0, 6.0])).tolist() == [-1, 0, 1]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"signals": np.zeros((4, 2, 8))}, "a single constant value"),
        ({"signals": np.full((4, 8), np.nan)}, "NaN"),
        ({"signals": np.arange(8.0)}, "must hold numbers"),
        ({"signals": np.array([["a"]])}, "must hold numbers"),
        ({"signals": np.arange(32.0).reshape(4, 8), "labels": np.zeros(3, int)}, "labels must be whole numbers [4]"),
        ({}, "is not an .npy or .npz of numbers"),
    ],
)
def test_files_that_hold_no_signals(tmp_path, arrays, words):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError) as error:
        open_signals("signals", tmp_path / "x.npz")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_paths_that_are_wrong(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 cut short")
    for name, path, words in (
        ("signals", None, "signals needs `path`"),
        ("signals", tmp_path / "x.npz", "is not an .npy or .npz"),
        ("signals", tmp_path / "none.npy", "no such file"),
        ("gaussian-process", tmp_path, "leave out the path"),
    ):
        with pytest.raises(UserError, match=words):
            open_signals(name, path)


def test_from_a_file_to_samples_in_its_units(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where samples.png, the default, does not exist
    wave = np.sin(np.linspace(0, 6 * np.pi, 16))
    signals = np.stack([level * np.stack([wave, -wave]) + 100 for level in np.linspace(1, 20, 12)])
    np.savez(tmp_path / "waves.npz", signals=signals, labels=np.arange(12) % 2)
    settings = [f"data.path={json.dumps(str(tmp_path / 'waves.npz'))}", "data.image_size=16", "model.num_classes=2"]
    config = load_config("clothing_profiles", [*TINY, *settings])
    train(config, tmp_path / "run", progress=False)
    assert Image.open(tmp_path / "run" / "samples" / "step-0000004.png").width > 100
    pipeline = load_pipeline(tmp_path / "run")
    assert pipeline.signal_range == (float(signals.min()), float(signals.max()))
    options = {"num_inference_steps": 2, "progress": False, "class_labels": [0, 1]}
    found = pipeline(2, **options).images
    assert isinstance(found, np.ndarray) and found.shape == (2, 2, 16)
    assert found.min() >= signals.min() - 1e-3 and found.max() <= signals.max() + 1e-3 and found.mean() > 50

    def run(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments])

    out = tmp_path / "s.npz"
    assert run("sample", tmp_path / "run", "--steps", 2, "--count", 1, "--class", "all", "--out", out).exit_code == 0
    with np.load(out) as stored:
        np.testing.assert_array_equal(stored["arr_0"], pipeline(seeds=[0, 0], **options).images)
        assert stored["arr_1"].tolist() == [0, 1]
    assert Image.open(tmp_path / "s.png").width > 100
    for arguments, words in (
        (("sample", tmp_path / "run"), "need FILE.npz"),
        (("interpolate", tmp_path / "run"), "samples one-dimensional signals"),
        (("evaluate", tmp_path / "run", "--metric", "is"), "samples one-dimensional signals"),
        (("inpaint", tmp_path / "run", out, "--mask", "left"), "samples one-dimensional signals"),
    ):
        result = run(*arguments)
        assert isinstance(result.exception, UserError) and words in str(result.exception), (arguments, result.output)


def test_images_and_signals_are_not_mixed_up(tmp_path):
    for name, settings, words in (
        ("gaussian_process", ["model.dims=2"], r"signals: they need model\.dims=1"),
        ("digits", ["model.dims=1"], r"images: they need model\.dims=2"),
        ("gaussian_process", ["data.image_size=32"], "have 64 samples"),
    ):
        with pytest.raises(UserError, match=words):
            train(load_config(name, [*TINY, *settings]), tmp_path / "run", progress=False)
