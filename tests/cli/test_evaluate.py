"""`sddpm evaluate` and `sddpm stats` as a user types them."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sddpm.diffusion.solvers import make_scheduler
from sddpm.evaluation.features.fad import FadEncoder
from sddpm.models import SpikingUNet2DModel
from sddpm.pipelines import SpikingDiffusionPipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    unet = SpikingUNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, base_channels=8, channel_mult=(1,), num_res_blocks=1, T=2
    )
    folder = tmp_path_factory.mktemp("saved") / "model"
    SpikingDiffusionPipeline(unet, make_scheduler("ddpm")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def fad(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "fad.pth"
    torch.save(FadEncoder(1).state_dict(), path)
    return path


@pytest.fixture
def options(fad):
    """For a model, which makes 70 samples in two steps."""
    return ("--metric", "fad", "--fad-weights", fad, "--samples", 70, "--steps", 2, "--device", "cpu")


def test_a_line_a_json_and_a_grid(sddpm, model, options, tmp_path):
    outputs = ("--out", "result.json", "--grid", "grid.png")
    code, out, err = sddpm("evaluate", model, "--reference", "digits", *options, "--seed", 3, *outputs, "--interval")
    assert code == 0, err
    first, second = out.splitlines()
    assert first.startswith("fad ") and "95 % interval" in first
    assert "not protocol sddpm: 70 samples instead of 50,000; own reference statistics" in first
    assert second.startswith("near copies") and "of 70 samples, among 1,797 images" in second
    assert Image.open("grid.png").size[0] > 8 * 8
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["command"].startswith(f"sddpm evaluate {model} --reference digits --metric fad")
    assert f"{found['metrics']['fad']['value']:.6g}" in first
    assert found["samples"]["seeds"] == [3, 72]
    assert len(found["weights"]["fad"]["sha256"]) == len(found["samples"]["sha256"]) == 64
    assert found["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert found["near_copies"]["checked"] == 70

    # The command in the file does it again, from what was kept.
    repeated = shlex.split(found["command"])[1:]
    assert sddpm(*repeated)[0] == 2  # the result is there already
    assert sddpm(*repeated, "--force")[1].splitlines()[0] == first


def test_stats_and_a_folder_of_samples(sddpm, model, options, fad, tmp_path):
    assert sddpm("sample", model, "--count", 70, "--steps", 2, "--device", "cpu", "--out", "images")[0] == 0
    code, out, err = sddpm("stats", "digits", "digits.npz", "--fad-weights", fad, "--device", "cpu")
    assert (code, out) == (0, "digits.npz: 1,797 images, 64 features\n"), err
    with np.load(tmp_path / "digits.npz") as content:
        assert content["mu"].shape == (64,) and content["sigma"].shape == (64, 64)
    quick = ("--metric", "fad", "--fad-weights", fad, "--device", "cpu")
    folder = sddpm("evaluate", "images", "--fad-statistics", "digits.npz", *quick)
    direct = sddpm("evaluate", model, "--reference", "digits", *options, "--batch-size", 16, "--no-copies")
    assert folder[0] == direct[0] == 0, (folder, direct)
    # The folder's images were sampled 16 at a time, so these are the same 70 images.
    assert float(folder[1].split()[1]) == pytest.approx(float(direct[1].split()[1]), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL", "--reference", "digits", "--v-threshold", "0"], "v_threshold must be a positive number"),
        (["MODEL", "--reference", "digits", "--samples", "20"], "20 samples are too few"),
        (["MODEL"], "give --reference"),
        (["MODEL", "--reference", "cut.npz"], "cut.npz"),
        (["nan.npz", "--reference", "digits"], "2 of 2 images hold NaN"),
        (["x.npy", "--reference", "digits"], "evaluate does not read .npy files: give an .npz of images in arr_0"),
        (["x.onnx", "--reference", "digits"], "give the model that was exported, or an .npz of samples"),
        (["MODEL", "--reference", "colour.npz"], "samples are grey 8x8, the reference (colour) colour 8x8"),
        (["MODEL", "--reference", "digits", "--inception", "no.pth", "--metric", "kid"], "no Inception weights"),
        (["MODEL", "--reference", "digits", "--out", "."], "is a folder"),
        (
            ["MODEL", "--reference", "digits", "--grid", "x.jpg"],
            "--grid x.jpg: a file name that ends in .png",
        ),
        (
            ["MODEL", "--reference", "digits", "--out", "x.png", "--grid", "./x.png"],
            "--out and --grid need different names",
        ),
        (["MODEL", "--reference", "digits", "--limit-reference", "0"], "--limit-reference must be at least 1, not 0"),
        (["MODEL", "--reference", "grey.npz", "--image-size", "0"], "--image-size must be at least 1, not 0"),
        (["MODEL", "--reference", "grey.npz", "--crop", "center"], "not cropped or resized: leave out --crop"),
        (["MODEL", "--reference", "grey.npz", "--resize", "box"], "not cropped or resized: leave out --resize"),
        (["MODEL", "--reference", "digits", "--out", "cut.npz/x.json"], "cannot write cut.npz/x.json"),
        (["MODEL", "--reference", "digits", "--protocol", "x"], "unknown protocol"),
    ],
)
def test_bad_input_is_one_line_and_code_2(sddpm, model, options, tmp_path, arguments, message):
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    np.savez(tmp_path / "nan.npz", np.full((2, 8, 8), np.nan))
    np.save(tmp_path / "x.npy", np.zeros((70, 8, 8), np.uint8))
    (tmp_path / "x.onnx").write_bytes(b"a network")
    np.savez(tmp_path / "grey.npz", np.zeros((70, 8, 8), np.uint8))
    np.savez(tmp_path / "colour.npz", np.zeros((70, 8, 8, 3), np.uint8))
    arguments = [model if word == "MODEL" else word for word in arguments]
    if arguments[0] in ("nan.npz", "x.npy", "x.onnx"):
        options = options[:4]
    code, out, err = sddpm("evaluate", arguments[0], *options, *arguments[1:])
    lines = [line for line in err.splitlines() if line]
    assert (code, out) == (2, "")
    assert message in lines[-1] and lines[-1].startswith("error: ") and len(lines) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--data", "."), "--data is only for a data set given by name: leave it out"),
        (("--download",), "--download is only for a data set given by name: leave it out"),
        (("--splits", 5), "--splits is only for the metric is: leave it out"),
        (("--kid-subsets", 5), "--kid-subsets is only for the metric kid or kad: leave it out"),
        (("--kid-subset-size", 5), "--kid-subset-size is only for the metric kid or kad: leave it out"),
    ],
)
def test_options_without_an_effect_on_two_sets_of_images_are_refused(sddpm, options, tmp_path, given, message):
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, np.zeros((70, 8, 8), np.uint8))
    code, out, err = sddpm("evaluate", "a.npz", "--reference", "b.npz", *options[:4], *given)
    assert (code, out, err) == (2, "", f"error: {message}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "kid", "--kid-subsets", "0"], "kid needs at least 1 subset of at least 2 images, not 0 of"),
        (["--metric", "kid", "--kid-subset-size", "1"], "not 100 of 1"),
        (["--metric", "is", "--splits", "0"], "at least one sample per split"),
        (["--metric", "kid", "--v-threshold", "nan"], "v_threshold must be a positive number"),
        (["--metric", "fid", "--dim", "192"], "70 samples are too few for a Fréchet distance in 192 features"),
    ],
)
def test_options_are_checked_before_weights_are_read(sddpm, model, arguments, message):
    code, out, err = sddpm(
        "evaluate", model, "--reference", "digits", "--samples", 70, "--inception", "gone", *arguments
    )
    assert (code, out) == (2, "") and message in err and len(err.splitlines()) == 1


def test_stats_needs_a_name_for_its_file(sddpm):
    assert "ends in .npz" in sddpm("stats", "digits", "digits.txt")[2]


def test_stats_refuses_what_would_do_nothing(sddpm, tmp_path):
    np.savez(tmp_path / "x.npz", np.zeros((70, 8, 8), np.uint8))
    given = {"--limit": 0, "--crop": "center", "--resize": "box", "--split": "train", "--data": "."}
    for option, value in given.items():
        code, _, err = sddpm("stats", "x.npz", "s.npz", option, value)
        assert code == 2 and option in err and len(err.splitlines()) == 1


def test_a_run_against_a_statistics_file(sddpm, model, fad, tmp_path):
    """The statistics say nothing of training images; the run's config does."""
    shutil.copytree(model, tmp_path / "run" / "model")
    (tmp_path / "run" / "config.yaml").write_text("data: {dataset: digits}\n")
    quick = ("--metric", "fad", "--fad-weights", fad, "--device", "cpu")
    assert sddpm("stats", "digits", "digits.npz", *quick[2:])[0] == 0
    code, out, err = sddpm("evaluate", "run", "--fad-statistics", "digits.npz", "--samples", 70, "--steps", 2, *quick)
    assert code == 0, err
    assert "of 70 samples, among 1,797 images" in out.splitlines()[1]
    code, out, err = sddpm("evaluate", "run", *quick, "--samples", 70, "--steps", 2, "--no-copies")
    assert (code, len(out.splitlines())) == (0, 1), err
    code, out, err = sddpm("evaluate", model, "--fad-statistics", "digits.npz", "--samples", 70, "--steps", 2, *quick)
    assert out.splitlines()[1] == "near copies    not searched: no training images are known: give --training"
    code, out, err = sddpm("evaluate", "run", *quick, "--samples", 70, "--steps", 2, "--training", "nowhere.zip")
    assert (code, err.splitlines()[-1]) == (2, "error: no such folder or zip: nowhere.zip")


@pytest.mark.slow
def test_two_processes_give_the_same_number(sddpm, model, options, tmp_path):
    arguments = ["evaluate", model, "--reference", "digits", *options, "--batch-size", 10, "--no-copies"]
    alone = sddpm(*arguments, "--out", "one.json")
    assert alone[0] == 0, alone
    environment = {**os.environ, "SDDPM_CACHE": str(tmp_path / "other"), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "sddpm", *map(str, arguments), "--out", "two.json"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=500)
    assert result.returncode == 0, result.stderr
    assert result.stdout == alone[1]
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["metrics"] == two["metrics"]  # to the last bit
    assert one["samples"] == two["samples"]
