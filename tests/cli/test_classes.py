"""`sddpm sample --class`: files, rows and refusals."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sddpm.cli.main import app
from sddpm.data import open_dataset
from sddpm.diffusion.solvers import make_scheduler
from sddpm.evaluation.processes import Processes
from sddpm.evaluation.sampling import SamplingSettings, sample_images, sampling_key
from sddpm.models import SpikingUNet2DModel
from sddpm.pipelines import SpikingDiffusionPipeline, load_pipeline
from sddpm.pipelines.class_guidance import resolve_labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    model = SpikingUNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, base_channels=8, channel_mult=(1,), T=2, num_classes=3
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("model")
    scheduler = make_scheduler("ddim", beta_schedule="cosine")
    SpikingDiffusionPipeline(model, scheduler, class_names=["cat", "T-shirt/top", "dog"]).save_pretrained(path)
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def sample(folder, out, *options):
    result = run("sample", folder, "--steps", 4, "--out", out, *options)
    assert result.exit_code == 0, result.output
    return out


def test_classes_are_rows_and_folders(folder, tmp_path):
    grid = Image.open(sample(folder, tmp_path / "grid.png", "--class", "all", "--count", 4, "--scale", 2))
    assert grid.height == 3 * (16 + 2) + 2 and grid.width > 4 * (16 + 2) + 2  # names stand before the rows
    files = sample(folder, tmp_path / "files", "--class", "t-shirt/top,none", "--seeds", "5,9")
    names = {"T-shirt-top/000005.png", "T-shirt-top/000009.png", "none/000005.png", "none/000009.png"}
    assert {path.relative_to(files).as_posix() for path in files.rglob("*.png")} == names
    assert open_dataset(files).class_names == ("T-shirt-top", "none")
    images = load_pipeline(folder)(seeds=[5], class_labels=1, num_inference_steps=4, progress=False).images
    assert np.array_equal(np.asarray(Image.open(files / "T-shirt-top" / "000005.png")), np.asarray(images[0]))
    packed = sample(folder, tmp_path / "dog.zip", "--class", "dog", "--count", 2, "--guidance-scale", 2)
    assert open_dataset(packed).names == ["000000.png", "000001.png"]


def test_an_npz_holds_the_classes(folder, tmp_path):
    with np.load(sample(folder, tmp_path / "all.npz", "--class", 2, "--class", "0", "--count", 2)) as stored:
        assert stored["arr_0"].shape == (4, 8, 8, 1) and stored["arr_1"].tolist() == [2, 2, 0, 0]
    with np.load(sample(folder, tmp_path / "random.npz", "--count", 6)) as stored:  # a class for each seed
        assert stored["arr_1"].tolist() == resolve_labels("random", range(6), 3)


def cells(path, columns):
    """The 8 x 8 pictures of a grid, from its right end, with 2 pixels around each."""
    grid = np.asarray(Image.open(path).convert("L"))
    grid = grid[:, grid.shape[1] - 10 * columns - 2 :]
    return [[grid[y : y + 8, 2 + 10 * i : 10 + 10 * i] for i in range(columns)] for y in range(2, len(grid) - 8, 10)]


def stored(path):
    with np.load(path) as content:
        return content["arr_0"][..., 0], content["arr_1"].tolist()


def test_a_row_of_interpolation_for_every_class_and_pair(folder, tmp_path):
    """Its ends are the samples of the class, which is a random one by the first seed unless one is asked for."""
    classes = ("--class", "dog,cat", "--guidance-scale", 2)
    options = ("--seeds", "5,9,2", "--frames", 3, "--steps", 4, "--scale", 1)
    assert run("interpolate", folder, *options, *classes, "--out", tmp_path / "a.png").exit_code == 0
    images, labels = stored(sample(folder, tmp_path / "a.npz", "--seeds", "5,9,2", *classes))
    five, nine, two = 0, 1, 2
    assert labels == [2, 2, 2, 0, 0, 0]
    expected = [(five, nine), (nine, two), (3 + five, 3 + nine), (3 + nine, 3 + two)]
    for row, ends in zip(cells(tmp_path / "a.png", 3), expected, strict=True):
        for drawn, end in ((row[0], ends[0]), (row[2], ends[1])):
            assert np.abs(drawn.astype(int) - images[end]).max() <= 1  # another batch may round differently
    assert run("interpolate", folder, *options, "--out", tmp_path / "b.png").exit_code == 0
    images, _ = stored(sample(folder, tmp_path / "b.npz", "--seeds", "5,9"))
    for row, image in zip(cells(tmp_path / "b.png", 3), images, strict=True):
        assert np.abs(row[0].astype(int) - image).max() <= 1


def test_painting_in_every_class_that_is_asked_for(folder, tmp_path):
    options = ("inpaint", folder, "digits", "--mask", "right", "--count", 2, "--draws", 2, "--steps", 2)
    options = (*options, "--resamplings", 1, "--class", "dog,none", "--guidance-scale", 3)
    assert run(*options, "--scale", 1, "--out", tmp_path / "grid.png").exit_code == 0
    assert run(*options, "--out", tmp_path / "all.npz").exit_code == 0
    images, labels = stored(tmp_path / "all.npz")
    assert labels == [2] * 4 + [3] * 4
    known = open_dataset("digits", image_size=8).gather([0, 1])
    arguments = {"seeds": range(4), "guidance_scale": 3.0, "num_inference_steps": 2, "resamplings": 1}
    for rows, label in ((images[:4], "dog"), (images[4:], "none")):
        painted = load_pipeline(folder).inpaint(
            known.repeat_interleave(2, 0), torch.arange(8).expand(8, 8) >= 4, class_labels=label, batch_size=16,
            output_type="pt", progress=False, **arguments,
        ).images  # fmt: skip
        assert np.abs(rows.astype(int) - (painted[:, 0] * 255).round().numpy()).max() <= 1
    (first, second) = (row[2:] for row in cells(tmp_path / "grid.png", 6))
    assert np.array_equal(first, images[[0, 1, 4, 5]]) and np.array_equal(second, images[[2, 3, 6, 7]])


def test_painting_without_a_class_has_nothing_to_be_guided_to(folder, tmp_path):
    from sddpm.errors import UserError

    result = run("inpaint", folder, "digits", "--mask", "right", "--guidance-scale", 2, "--out", tmp_path / "x.png")
    assert isinstance(result.exception, UserError) and "needs class labels" in str(result.exception)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--class", "7"], "unknown class '7': choose 0 to 2 (cat, T-shirt/top, dog), or none"),
        (["--class", "dgo"], "did you mean dog"),
        (["--class", "cat,0"], "names a class twice"),
        (["--class", "cat,random"], "all and random cannot be combined"),
        (["--class", "cat", "--guidance-scale", "-2"], "at least 0"),
    ],
)
def test_refusals(folder, tmp_path, options, words):
    from sddpm.errors import UserError

    result = run("sample", folder, "--out", tmp_path / "x.png", *options)
    assert isinstance(result.exception, UserError) and words in str(result.exception)
    assert not any(tmp_path.iterdir())


def test_evaluation_draws_classes_with_the_seeds(folder, tmp_path):
    pipeline, settings = (
        load_pipeline(folder),
        SamplingSettings(num_inference_steps=4, first_seed=3, batch_size=2, guidance_scale=2.0),
    )
    images = sample_images(pipeline, "digest", settings, 5, tmp_path, Processes())
    expected = pipeline(
        seeds=range(3, 8), class_labels=resolve_labels("random", range(3, 8), 3), guidance_scale=2.0,
        num_inference_steps=4, output_type="pt", progress=False,
    ).images  # fmt: skip
    assert torch.equal(images.gather(range(5)), (expected * 255).round().to(torch.uint8))
    keys = {
        sampling_key("digest", each, pipeline)
        for each in (settings, SamplingSettings(4), SamplingSettings(4, class_label="dog"))
    }
    assert len(keys) == 3


def test_energy_counts_both_evaluations_of_guidance(folder):
    """At one step both ask about the same x_T: what is counted is the sum of the class's evaluation and none's."""
    from sddpm.energy import measure_sampling

    pipeline = load_pipeline(folder)

    def account(label, scale):
        return measure_sampling(pipeline, [0, 1], num_inference_steps=1, class_labels=label, guidance_scale=scale)

    with_class, without, guided = account(2, 1.0), account("none", 1.0), account(2, 3.0)
    assert (with_class.evaluations_per_sample, guided.evaluations_per_sample) == (1, 2)
    assert guided.images == 2 and guided.snn_steps == 2
    for a, b, both in zip(with_class.layers, without.layers, guided.layers, strict=True):
        assert (a.ac + b.ac, a.mac + b.mac, a.updates + b.updates) == (both.ac, both.mac, both.updates), both.name


@pytest.fixture
def renamed(folder, tmp_path):
    """The same model with other names of its classes."""

    def rename(names):
        copy = shutil.copytree(folder, tmp_path / "renamed")
        index = json.loads((copy / "model_index.json").read_text())
        (copy / "model_index.json").write_text(json.dumps({**index, "class_names": names}))
        return copy

    return rename


def test_classes_named_by_numbers_are_taken_by_name_first(renamed, tmp_path):
    model = renamed(["1", "2", "3"])
    sample(model, tmp_path / "all", "--count", 1, "--class", "all")
    assert sorted(path.parent.name for path in (tmp_path / "all").rglob("*.png")) == ["1", "2", "3"]
    for name, number in (("1", 0), ("3", 2), ("0", 0)):
        sample(model, tmp_path / f"{name}.npz", "--count", 1, "--class", name)
        with np.load(tmp_path / f"{name}.npz") as content:
            assert content["arr_1"].tolist() == [number]


@pytest.mark.parametrize("out", ["deep/out", "deep/out.zip"])
def test_names_of_classes_never_lead_outside(renamed, tmp_path, out):
    model = renamed(["..", "", "/etc"])
    (tmp_path / "deep").mkdir()
    before = set(tmp_path.rglob("*"))
    sample(model, tmp_path / out, "--count", 1, "--class", "all")
    if out.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / out) as archive:
            names = archive.namelist()
    else:
        names = [str(path.relative_to(tmp_path / out)) for path in (tmp_path / out).rglob("*.png")]
    assert sorted(names) == ["-etc/000000.png", "class-0/000000.png", "class-1/000000.png"]
    assert all(path.is_relative_to(tmp_path / out) for path in set(tmp_path.rglob("*")) - before)
