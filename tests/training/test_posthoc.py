"""Averages of a length chosen afterwards: from a run's snapshots, or from the checkpoints it kept; resumed runs too."""

import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from sddpm import load_pipeline
from sddpm.errors import UserError
from sddpm.moving import pack_run, unpack_run
from sddpm.training import train
from sddpm.training.checkpoint import checkpoint_path
from sddpm.training.posthoc import posthoc_average
from sddpm.training.power_ema import gamma_of, quadrature
from sddpm.training.snapshots import list_snapshots, of_width

POWER = ["train.ema_power=[0.05,0.1]", "train.ema_snapshot_every=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny):
    """Six steps with snapshots of each, checkpoints of all."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(tiny(*POWER, "train.checkpoint_every=1", "train.keep_checkpoints=9"), folder, progress=False)
    return folder


def course(run, steps):
    """The plain weights of each step, float64 by name."""
    files = [load_file(checkpoint_path(run, step) / "model.safetensors") for step in steps]
    return {name: torch.stack([file[name].double() for file in files]) for name in files[0]}


def weighted(course, weights):
    return {name: torch.tensordot(weights, values, 1) for name, values in course.items()}


def sigma_norm(sigma_rel, step):
    """The norm of a profile, sqrt((g + 1)^2 / ((2 g + 1) t))."""
    gamma = gamma_of(sigma_rel)
    return (gamma + 1) / ((2 * gamma + 1) * step) ** 0.5


def assert_model_is(folder, expected, rtol=1e-4):
    for name, value in load_pipeline(folder).unet.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=rtol, atol=1e-6, msg=name)


def test_snapshots_hold_the_sums_that_the_profile_says(run):
    assert list(list_snapshots(run)) == [1, 2, 3, 4, 5, 6]
    stored = load_file(list_snapshots(run)[6])
    edges = torch.arange(7, dtype=torch.float64) / 6
    for width in (0.05, 0.1):
        weights = (edges ** (gamma_of(width) + 1)).diff()
        expected = weighted(course(run, range(1, 7)), weights)
        for name, value in of_width(stored, width).items():
            if value.is_floating_point():
                torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6, msg=name)


def test_a_length_that_was_stored_and_one_that_was_not(run, tmp_path):
    made = posthoc_average(run, tmp_path / "same", 0.1)
    assert (made.step, made.snapshots) == (6, 6) and made.error < 1e-5
    stored = of_width(load_file(list_snapshots(run)[6]), 0.1)
    assert_model_is(tmp_path / "same", {name: value.double() for name, value in stored.items()})
    made = posthoc_average(run, tmp_path / "other", 0.15, step=5)
    weights = ((torch.arange(6, dtype=torch.float64) / 5) ** (gamma_of(0.15) + 1)).diff()
    weights_of = course(run, range(1, 6))
    expected, norm = weighted(weights_of, weights), sigma_norm(0.15, 5)
    for name, value in load_pipeline(tmp_path / "other").unet.state_dict().items():
        if value.is_floating_point():  # Cauchy, Schwarz: profiles that differ by so much, of weights that vary so much
            spread = (weights_of[name] - weights_of[name].mean(0)).square().sum(0).sqrt()
            bound = 1.001 * made.error * norm * spread + 1e-6
            assert ((value.double() - expected[name]).abs() <= bound).all(), name
    history = yaml.safe_load((tmp_path / "other" / "history.yaml").read_text())
    assert [stage["what"] for stage in history] == ["trained", "averaged"]
    assert history[1]["parts"] == "length 0.15 at step 5, of 5 snapshots"
    assert (tmp_path / "other" / "config.yaml").read_bytes() == (run / "config.yaml").read_bytes()


def test_a_run_without_snapshots_is_averaged_from_its_checkpoints(run, tmp_path):
    shutil.copytree(run, tmp_path / "plain", ignore=shutil.ignore_patterns("snapshots"))
    made = posthoc_average(tmp_path / "plain", tmp_path / "out", 0.2)
    assert made.error is None and made.snapshots == 6
    x = torch.from_numpy(quadrature(range(1, 7), 6, gamma_of(0.2)))
    assert_model_is(tmp_path / "out", weighted(course(run, range(1, 7)), x))


def test_a_resumed_run_has_the_same_snapshots(run, tiny, tmp_path):
    def config(steps):
        return tiny(*POWER, "train.checkpoint_every=1", "train.keep_checkpoints=9", f"train.steps={steps}")

    train(config(3), tmp_path / "part", progress=False)
    (tmp_path / "part" / "snapshots" / "step-0000009.safetensors").write_bytes(b"of a future that did not come")
    pack_run(tmp_path / "part", tmp_path / "pack")
    unpack_run(tmp_path / "pack", tmp_path / "elsewhere")
    for name, kept in (("part", [1, 2, 3, 4, 5, 6]), ("elsewhere", [4, 5, 6])):
        train(config(6), tmp_path / name, resume=True, progress=False)
        assert list(list_snapshots(tmp_path / name)) == kept
        for step in kept:
            assert list_snapshots(tmp_path / name)[step].read_bytes() == list_snapshots(run)[step].read_bytes()
    pack_run(tmp_path / "part", tmp_path / "half", half=True)
    unpack_run(tmp_path / "half", tmp_path / "rounded")
    files = [load_file(checkpoint_path(tmp_path / name, 6) / "power.safetensors") for name in ("part", "rounded")]
    for name, value in files[0].items():
        assert files[1][name].dtype == value.dtype
        torch.testing.assert_close(files[1][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0.0}, "length .* must be above 0 and at most 0.2887"),
        ({"length": float("nan")}, "length .* must be above 0"),
        ({"length": 0.1, "step": 7}, "stored nothing at step 7: choose one of 1, 2"),
    ],
)
def test_refusals(run, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        posthoc_average(run, tmp_path / "out", **options)
    with pytest.raises(UserError, match="neither snapshots nor checkpoints"):
        posthoc_average(tmp_path, tmp_path / "out", 0.1)
    assert not (tmp_path / "out").exists()


def test_the_command(run, sddpm):
    code, out, err = sddpm("ema", run, "out", "--length", "0.1")
    assert code == 0, err
    assert "length 0.1 at step 6" in out and "from 6 snapshots; relative error of its profile 0.00%" in out
    code, _, err = sddpm("ema", run, "short", "--length", "0.01")
    assert code == 0 and "warning: the snapshots do not support this length" in err
    assert sddpm("ema", run, "out", "--length", "0.1")[0] == 2
