"""`sddpm guide` as a user types it, and what sample, evaluate and info make of its choice."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sddpm.cli.guide import parse_grid
from sddpm.diffusion.solvers import make_scheduler
from sddpm.errors import UserError
from sddpm.evaluation.features.fad import FadEncoder
from sddpm.guidance import store_sampler
from sddpm.guidance.settings import DEFAULT_GRID
from sddpm.models import SpikingUNet2DModel
from sddpm.pipelines import Sampler, SpikingDiffusionPipeline, load_pipeline


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    unet = SpikingUNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, base_channels=8, channel_mult=(1,), num_res_blocks=1, T=2
    )
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    SpikingDiffusionPipeline(unet, make_scheduler("ddim")).save_pretrained(tmp_path / "model")
    torch.save(FadEncoder(1).state_dict(), tmp_path / "fad.pth")
    return "model"


QUICK = ("--metric", "fad", "--fad-weights", "fad.pth", "--samples", 100, "--steps", 2, "--grid", "0.8,0.9",
         "--refine", 0, "--resamples", 40, "--device", "cpu")  # fmt: skip


def make_reference(sddpm, threshold, x0_scale=1):
    """400 samples with that threshold and scale, so that they are the best."""
    options = ("--seeds", "5000-5399", "--steps", 2, "--v-threshold", threshold, "--x0-scale", x0_scale)
    options += ("--batch-size", 50)
    assert sddpm("sample", "model", *options, "--device", "cpu", "--out", "real.npz")[0] == 0


def test_search_keep_sample_and_clear(sddpm, model, tmp_path):
    make_reference(sddpm, 0.8)
    sample = ("sample", model, "--count", 4, "--steps", 2, "--device", "cpu", "--force")
    sddpm(*sample, "--out", "trained.npz")
    outputs = ("--out", "found.json", "--figure", "found.png", "--proxy-images", 8)
    code, out, err = sddpm("guide", model, "--reference", "real.npz", *QUICK, *outputs)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split()[:3] == ["threshold", "fad", "difference"]
    assert lines[1].startswith("*") and "0.8" in lines[1] and "trained" in lines[3]
    assert "verdict: 0.8 beats the trained thresholds beyond noise" in out
    assert "saved with model" in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["command"].startswith("sddpm guide model --reference real.npz") and found["stored"]
    assert Image.open("found.png").size[0] > 500

    assert "samples with threshold 0.8: fad " in sddpm("info", model)[1]
    sddpm(*sample, "--out", "guided.npz")
    sddpm(*sample, "--out", "said.npz", "--v-threshold", 0.8)
    sddpm(*sample, "--out", "trained2.npz", "--v-threshold", "trained")
    sddpm(*sample, "--out", "one.npz", "--v-threshold", 1.0)
    arrays = {name: np.load(f"{name}.npz")["arr_0"] for name in ("trained", "guided", "said", "trained2", "one")}
    assert np.array_equal(arrays["guided"], arrays["said"])
    assert np.array_equal(arrays["trained"], arrays["trained2"])
    assert np.array_equal(arrays["trained"], arrays["one"])
    assert not np.array_equal(arrays["trained"], arrays["guided"])

    evaluate = ("evaluate", model, "--reference", "real.npz", *QUICK[:8], "--no-copies", "--device", "cpu", "--force")
    assert sddpm(*evaluate, "--out", "x.json")[0] == 0
    assert json.loads((tmp_path / "x.json").read_text())["samples"]["v_threshold"] == 0.8

    assert sddpm("guide", model, "--clear")[0] == 0
    sddpm(*sample, "--out", "cleared.npz")
    assert np.array_equal(np.load("cleared.npz")["arr_0"], arrays["trained"])
    assert "samples with" not in sddpm("info", model)[1]


def test_a_scale_is_found_kept_and_cleared(sddpm, model, tmp_path):
    before = (tmp_path / "model" / "model_index.json").read_text()
    make_reference(sddpm, 1.0, 0.3)
    options = ("--search", "x0-scale", "--grid", "0.3,0.6", "--figure", "x.png")
    code, out, err = sddpm("guide", model, "--reference", "real.npz", *QUICK, *options)
    assert code == 0, err
    assert out.splitlines()[0].split()[:3] == ["x0_scale", "fad", "difference"]
    assert "verdict: x0_scale 0.3 beats x0_scale 1 beyond noise" in out and "proxy" not in out
    assert "--x0-scale 1, or guide --clear --search x0-scale, undoes it" in out
    assert Image.open("x.png").size[0] > 500
    assert "x0_scale     0.3" in sddpm("info", model)[1]
    assert json.loads((tmp_path / "model" / "model_index.json").read_text())["x0_scale"] == 0.3
    assert "without an x0_scale" in sddpm("guide", model, "--clear", "--search", "x0-scale")[1]
    assert (tmp_path / "model" / "model_index.json").read_text() == before


def test_what_does_not_win_is_kept_only_if_asked(sddpm, model, tmp_path):
    make_reference(sddpm, 1.0)
    before = (tmp_path / "model" / "model_index.json").read_text()
    command = ("guide", model, "--reference", "real.npz", *QUICK, "--proxy-images", 0)
    code, out, _ = sddpm(*command)
    assert code == 0 and "model was not changed" in out and "beats" not in out
    assert (tmp_path / "model" / "model_index.json").read_text() == before
    assert "saved with model" in sddpm(*command, "--store")[1]
    assert (tmp_path / "model" / "model_index.json").read_text() != before
    sddpm("guide", model, "--clear")
    (tmp_path / "real.npz").unlink()
    make_reference(sddpm, 0.8)
    assert "model was not changed" in sddpm(*command, "--no-store")[1]
    assert (tmp_path / "model" / "model_index.json").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model", "--grid", "0"], "thresholds and scales must be positive numbers, not 0"),
        (["model", "--grid", "nan"], "thresholds and scales must be positive numbers, not nan"),
        (["model", "--grid", "low"], "'low' is neither a number nor"),
        (["model", "--grid", ","], "--grid needs at least one number"),
        (["model", "--budget", "2"], "--budget 2 is too small"),
        (["model", "--samples", "50"], "50 samples are too few"),
        (["model", "--search", "depth"], "unknown search 'depth'"),
        (["model", "--range", "0.9,1.1"], "--range is only for --method coordinate: leave it out"),
        (["model", "--groups", "middle"], "--groups is only for --search layers or layers-time: leave it out"),
        (["model", "--boundary", "9"], "--boundary is only for --search time or layers-time: leave it out"),
        (["model", "--search", "layers", "--budget", "9"], "--grid is only for --method grid: leave it out"),
        (["model", "--method", "coordinate", "--budget", "9"], "--grid is only for --method grid: leave it out"),
        (["nothing"], "no model at nothing"),
        (["damaged"], "damaged"),
        (["model", "--clear"], "is only for a search: leave it out with --clear"),
        (["model", "--metric", "is"], "guidance uses one metric"),
        (["model", "--out", "."], "is a folder"),
        (["model", "--steps", "0"], "steps must be"),
    ],
)
def test_bad_input_is_one_line_and_code_2(sddpm, model, tmp_path, arguments, message):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "model_index.json").write_text("{")
    code, out, err = sddpm("guide", arguments[0], "--reference", "digits", *QUICK, *arguments[1:])
    lines = [line for line in err.splitlines() if line]
    assert (code, out) == (2, "")
    assert message in lines[-1] and lines[-1].startswith("error: ") and len(lines) == 1


@pytest.mark.parametrize("option", ["--fad-statistics", "--held-out", "--reference", "--fad-weights"])
@pytest.mark.parametrize("output", ["--out", "--figure"])
def test_no_input_is_replaced(sddpm, model, tmp_path, option, output):
    (tmp_path / "x.png").write_text("precious")
    code, out, err = sddpm("guide", model, *QUICK, option, "x.png", output, "x.png", "--force")
    assert (code, out) == (2, "") and f"{output} x.png is also an input" in err
    assert (tmp_path / "x.png").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model", "--search", "layers"], "--budget, the number of choices to try, is needed"),
        (["model", "--search", "layers", "--budget", "9", "--groups", "x"], "unknown group of layers 'x'"),
        (["model", "--search", "layers", "--budget", "9", "--refine", "1"], "--refine is only for --method grid"),
        (["model", "--method", "coordinate", "--range", "1"], "two numbers such as"),
    ],
)
def test_bad_input_to_a_search_without_a_grid(sddpm, model, arguments, message):
    code, out, err = sddpm("guide", *arguments, "--reference", "digits", *QUICK[:8], "--device", "cpu")
    assert (code, out) == (2, "") and message in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no model at nothing"),
        (["model", "--search", "depth"], "unknown search 'depth'"),
        (["model", "--search", "sampler"], "model has no saved sampler to remove"),
        (["model", "--out", "x.json"], "--out is only for a search: leave it out with --clear"),
        (["model", "--store"], "--store is only for a search"),
        (["model", "--samples", "9"], "--samples is only for a search"),
        (["model", "--groups", "x"], "--groups is only for a search"),
    ],
)
def test_what_cannot_be_cleared(sddpm, model, arguments, message):
    code, out, err = sddpm("guide", *arguments, "--clear")
    assert (code, out) == (2, "") and message in err and len(err.strip().splitlines()) == 1


def test_grids():
    assert parse_grid("paper,wide") == DEFAULT_GRID
    assert parse_grid("1.05, 0.5") == (0.5, 1.05)
    with pytest.raises(UserError):
        parse_grid("paper;wide")


@pytest.mark.slow
def test_two_processes_find_the_same(sddpm, model, tmp_path):
    make_reference(sddpm, 0.8)
    arguments = ["guide", model, "--reference", "real.npz", *map(str, QUICK), "--proxy-images", "0", "--no-store"]
    alone = sddpm(*arguments)
    assert alone[0] == 0, alone
    environment = {**os.environ, "SDDPM_CACHE": str(tmp_path / "other"), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "sddpm", *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=500)
    assert result.returncode == 0, result.stderr
    assert result.stdout == alone[1]


def test_a_sampler_is_found_kept_listed_and_cleared(sddpm, model, tmp_path):
    before = (tmp_path / "model" / "model_index.json").read_text()
    make_reference(sddpm, 1.0, 0.5)
    search = ("--search", "sampler", "--evaluations", 2, "--proxy-seeds", 2, "--proxy-budget", 4, "--seed-sets", 1)
    quick = ("--fad-weights", "fad.pth", "--samples", 100, "--grid", "0.5,0.8", "--refine", 0, "--resamples", 40)
    command = ("guide", model, "--reference", "real.npz", *search, *quick, "--device", "cpu", "--validation-sets", 1)
    code, out, err = sddpm(*command, "--out", "found.json", "--store", "--keep-as", "two")
    assert code == 0, err
    assert out.splitlines()[0].split()[:2] == ["kad", "difference"] and "verdict: it " in out
    assert "saved with model as two" in out and "nearest: " in err
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["stored"] == "two" and found["chosen"]["x0_scale"] == 0.5 and found["metric"] == "kad"
    assert "sampler      two, the default: " in sddpm("info", model)[1]
    assert sddpm("guide", model, "--clear", "--search", "sampler", "--keep-as", "two")[0] == 0
    assert (tmp_path / "model" / "model_index.json").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--evaluations", "0"], "--evaluations must be at least 1, not 0"),
        (["--budget", "0"], "--budget must be at least 2, not 0"),
        (["--steps", "3"], "leave out --num-inference-steps"),
        (["--sampler", "own"], "leave out --sampler"),
        (["--metric", "fad"], "fad of 100 samples is biased towards less variation: choose one of kid, kad"),
        (["--keep-as", "own"], "a sampler cannot be named 'own'"),
        (["--figure", "x.png"], "--figure is only for the other searches"),
        (["--method", "grid"], "--method is only for the other searches"),
        (["--range", "0.9,1.1"], "--range is only for the other searches"),
        (["--held-out", "digits"], "--held-out is only for the other searches"),
    ],
)
def test_what_cannot_be_searched_among_samplers(sddpm, model, arguments, message):
    command = ("guide", model, "--reference", "digits", "--search", "sampler", "--fad-weights", "fad.pth")
    code, out, err = sddpm(*command, "--samples", 100, "--device", "cpu", *arguments)
    assert (code, out) == (2, "") and message in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("option", ["--evaluations", "--keep-as", "--proxy-seeds", "--proxy-budget"])
def test_options_of_samplers_need_that_search(sddpm, model, option):
    code, out, err = sddpm("guide", model, "--reference", "digits", "--device", "cpu", option, 10)
    assert (code, out) == (2, "") and f"{option} is only for --search sampler: leave it out\n" in err


def test_a_scale_that_the_default_sampler_would_hide_is_not_searched(sddpm, model, tmp_path):
    store_sampler(tmp_path / model, "fast", Sampler("ddim", 2, x0_scale=1.02))
    make_reference(sddpm, 1.0, 0.9)
    search = ("guide", model, "--search", "x0-scale", "--reference", "real.npz", "--metric", "fad", "--device", "cpu")
    search += ("--fad-weights", "fad.pth", "--samples", 100, "--grid", "0.9,1", "--refine", 0, "--resamples", 40)
    code, _, err = sddpm(*search)
    assert code == 2 and "the sampler fast of this model has an x0_scale of its own" in err
    assert "or give --sampler own" in err
    code, out, err = sddpm(*search, "--steps", 2, "--store")
    assert code == 0, err
    assert "only with --solver or --sampler own, since the default sampler fast has its own" in out
    assert load_pipeline(tmp_path / model).x0_scale == 0.9
