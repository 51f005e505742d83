"""`sddpm inpaint` and `sddpm interpolate` on a small untrained model."""

import inspect
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from sddpm.cli.inpaint import inpaint
from sddpm.diffusion.solvers import make_scheduler
from sddpm.models import SpikingUNet2DModel
from sddpm.pipelines import SamplingOptions, SpikingDiffusionPipeline

QUICK = ("--steps", 2, "--resamplings", 2, "--scale", 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    unet = SpikingUNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, base_channels=8, channel_mult=(1, 2), num_res_blocks=1, T=2
    )
    folder = tmp_path_factory.mktemp("saved") / "model"
    SpikingDiffusionPipeline(unet, make_scheduler("ddpm")).save_pretrained(folder)
    return folder


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return pixels


def cells(path, columns):
    """The 8 x 8 pictures of a grid with 2 pixels around each."""
    grid = np.asarray(Image.open(path).convert("L"))
    return [[grid[y : y + 8, 2 + 10 * i : 10 + 10 * i] for i in range(columns)] for y in range(2, len(grid) - 8, 10)]


def test_the_command_paints_as_the_pipeline_does():
    command, pipeline = (
        inspect.signature(f).parameters for f in (inpaint, SpikingDiffusionPipeline.inpaint)
    )  # fmt: skip
    own = ("jump_length", "resamplings")
    assert {name: command[name].default for name in own} == {name: pipeline[name].default for name in own}
    assert pipeline["options"].default is None
    options = SamplingOptions()
    for name in ("num_inference_steps", "solver", "eta", "v_threshold", "guidance_scale", "x0_scale", "engine"):
        assert command[name].default == getattr(options, name), name


def test_a_picture_of_what_is_known_and_what_is_painted(sddpm, model, photo, tmp_path):
    code, out, _ = sddpm("inpaint", model, "photo.png", "--mask", "right", "--draws", 3, *QUICK)
    assert code == 0 and "1 images, each repainted 3 times" in out
    ((original, known, *paintings),) = cells(tmp_path / "inpainted.png", 5)
    assert np.array_equal(original, photo)
    assert np.array_equal(known[:, :4], photo[:, :4]) and (known[:, 4:] == 128).all()
    for painting in paintings:
        assert np.array_equal(painting[:, :4], photo[:, :4])
        assert not np.array_equal(painting[:, 4:], photo[:, 4:])
    assert not np.array_equal(paintings[0], paintings[1])


def test_a_mask_from_a_file_and_images_of_a_data_set(sddpm, model, tmp_path):
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2:4] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = ("--mask", "mask.png", "--count", 2, "--draws", 2, "--seed", 5, *QUICK[:4])
    assert sddpm("inpaint", model, "digits", *options, "--out", "painted")[0] == 0
    assert sorted(path.name for path in (tmp_path / "painted").iterdir()) == [f"{i:06d}.png" for i in (5, 6, 7, 8)]
    assert sddpm("inpaint", model, "digits", *options, "--out", "painted.npz")[0] == 0
    with np.load(tmp_path / "painted.npz") as content:
        painted = content["arr_0"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "painted" / "000006.png")), painted[1, :, :, 0])
    kept = mask == 0
    assert np.array_equal(painted[0][kept], painted[1][kept]) and not np.array_equal(painted[0][kept], painted[2][kept])


def test_interpolation_begins_and_ends_with_samples(sddpm, model, tmp_path):
    assert sddpm("interpolate", model, "--seeds", "3,7,1", "--frames", 4, "--steps", 3, "--scale", 1)[0] == 0
    options = ("--seeds", "3,7,1", "--steps", 3, "--scale", 1, "--columns", 3, "--solver", "ddim")
    assert sddpm("sample", model, *options)[0] == 0
    rows, ((three, seven, one),) = cells(tmp_path / "interpolation.png", 4), cells(tmp_path / "samples.png", 3)
    for row, first, last in ((rows[0], three, seven), (rows[1], seven, one)):
        assert np.abs(row[0].astype(int) - first).max() <= 1  # another batch may round differently
        assert np.abs(row[3].astype(int) - last).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inpaint", "photo.png", "--mask", "middle"), "neither one of left, right"),
        (("inpaint", "photo.png", "--mask", "photo.txt"), "is not a readable image"),
        (("inpaint", "photo.txt", "--mask", "left"), "is not a readable image"),
        (("inpaint", "photo.gif", "--mask", "left"), "no such folder or zip"),
        (("inpaint", "photo.png", "--mask", "left", "--solver", "dpm++"), "inpainting repeats steps"),
        (("inpaint", "photo.png", "--mask", "left", "--draws", 0), "at least 1"),
        (("inpaint", "photo.png", "--mask", "left", "--resamplings", 0), "at least 1"),
        (("inpaint", "photo.png", "--mask", "left", "--out", "photo.png"), "is also an input"),
        (("inpaint", "photo.png", "--mask", "left", "--count", 8), "--count is only for several images: leave it out"),
        (("inpaint", "photo.png", "--mask", "left", "--data", "x"), "--data is only for a data set given by name"),
        (("inpaint", "digits", "--mask", "left", "--out", "x", "--scale", 2), "--scale is only for FILE.png"),
        (("interpolate", "--seeds", "3"), "at least 2 seeds"),
        (("interpolate", "--frames", 1), "2 frames"),
        (("interpolate", "--solver", "ddpm"), "solver that adds no noise"),
        (("interpolate", "--out", "x.gif"), "ends in .png"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(sddpm, model, photo, tmp_path, arguments, message):
    (tmp_path / "photo.txt").write_text("no picture")
    verb, *rest = arguments
    code, out, err = sddpm(verb, model, *rest)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ") and message in err.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"photo.png", "photo.txt"}


@pytest.mark.parametrize(("side", "message"), [(9500, "9500x9500 pixels, more"), (14000, "more than the 50,000,000")])
def test_a_huge_image_is_refused_without_a_warning(sddpm, model, tmp_path, side, message):
    """Pillow warns of images above 89 million pixels, and refuses twice as many itself."""
    Image.new("1", (side, side)).save(tmp_path / "huge.png")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        code, out, err = sddpm("inpaint", model, "huge.png", "--mask", "left")
    assert (code, out) == (2, "") and message in err and len(err.splitlines()) == 1
    assert not [each for each in found if issubclass(each.category, Image.DecompressionBombWarning)]
