import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from PIL import Image

from sddpm.cli.options import parse_thresholds
from sddpm.cli.sample import output_format, parse_seeds
from sddpm.cli.sample_outputs import write_images
from sddpm.data import unit_to_uint8
from sddpm.diffusion.solvers import make_scheduler
from sddpm.errors import UserError
from sddpm.guidance import store_sampler
from sddpm.models import SpikingUNet2DModel
from sddpm.pipelines import Sampler, SpikingDiffusionPipeline, load_pipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    unet = SpikingUNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, base_channels=8, channel_mult=(1, 2), num_res_blocks=1, T=2
    )
    folder = tmp_path_factory.mktemp("saved") / "model"
    SpikingDiffusionPipeline(unet, make_scheduler("ddpm")).save_pretrained(folder)
    return folder


def python_images(model, seeds, **options):
    images = load_pipeline(model)(
        seeds=seeds, num_inference_steps=3, output_type="pil", progress=False, **options
    ).images
    return np.stack([np.asarray(image) for image in images])


def test_grid(sddpm, model, tmp_path):
    code, out, _ = sddpm("sample", model, "--count", 5, "--steps", 3, "--scale", 1, "--columns", 3)
    assert code == 0
    assert "samples.png: 5 images" in out
    grid = np.asarray(Image.open(tmp_path / "samples.png").convert("L"))
    assert grid.shape == (2 * 10 + 2, 3 * 10 + 2)
    assert np.array_equal(grid[12:20, 2:10], python_images(model, range(5))[3])


def test_folder_and_zip_name_images_by_seed(sddpm, model, tmp_path):
    options = ("--seeds", "7,2-3", "--steps", 3, "--solver", "dpm++", "--v-threshold", "0.9")
    assert sddpm("sample", model, *options, "--out", "many")[0] == 0
    assert sddpm("sample", model, *options, "--out", "many.zip")[0] == 0
    expected = python_images(model, [7, 2, 3], solver="dpm++", v_threshold=0.9)
    names = ["000007.png", "000002.png", "000003.png"]
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == sorted(names)
    with zipfile.ZipFile(tmp_path / "many.zip") as archive:
        assert archive.namelist() == names
        for name, pixels in zip(names, expected, strict=True):
            assert np.array_equal(np.asarray(Image.open(tmp_path / "many" / name)), pixels)
            assert np.array_equal(np.asarray(Image.open(archive.open(name))), pixels)


def test_images_of_an_earlier_call_are_not_mixed_with_others(sddpm, model, tmp_path):
    options = ("sample", model, "--steps", 1, "--out", "many", "--force")
    assert sddpm(*options, "--seeds", "1-3")[0] == 0
    before = (tmp_path / "many" / "000001.png").read_bytes()
    code, _, err = sddpm(*options, "--seeds", "1-2", "--v-threshold", "0.5")
    assert code == 2 and "many has 000003.png of an earlier call, which would stay" in err
    assert (tmp_path / "many" / "000001.png").read_bytes() == before
    assert sddpm(*options, "--seeds", "1-4")[0] == 0


@pytest.mark.parametrize("scheduler", [DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"), DDIMScheduler()])
def test_a_stock_scheduler_samples_alike_in_python_and_here(sddpm, model, tmp_path, scheduler):
    """Of diffusers, as its users save it: without `--solver` it is the one that samples, and not one of ours."""
    pipe, stock = load_pipeline(model), tmp_path / "stock"
    pipe.register_modules(scheduler=scheduler)
    pipe.save_pretrained(stock)
    assert sddpm("sample", stock, "--seeds", "3,4", "--steps", 3, "--out", "x.npz")[0] == 0
    drawn = np.load(tmp_path / "x.npz")["arr_0"][..., 0]
    assert np.array_equal(drawn, python_images(stock, [3, 4]))
    assert not np.array_equal(drawn, python_images(stock, [3, 4], solver="ddim"))


def test_npz(sddpm, model, tmp_path):
    options = ("--count", 3, "--steps", 3, "--solver", "ddpm", "--out", "x.npz", "--v-threshold", "down*=0.5")
    assert sddpm("sample", model, *options)[0] == 0
    with np.load(tmp_path / "x.npz") as content:
        assert content.files == ["arr_0"]
        array = content["arr_0"]
    assert array.dtype == np.uint8
    expected = python_images(model, range(3), solver="ddpm", v_threshold={"down*": 0.5})
    assert np.array_equal(array, expected[..., None])


def test_strip(sddpm, model, tmp_path):
    code, out, _ = sddpm("sample", model, "--count", 2, "--steps", 12, "--strip", "strip.png", "--scale", 4)
    assert code == 0 and "strip.png" in out
    width, height = Image.open(tmp_path / "strip.png").size
    assert width > 10 * 34 and height > 4 * 34


def test_existing_output_stays_unless_forced(sddpm, model, tmp_path):
    (tmp_path / "samples.png").write_text("precious")
    code, _, err = sddpm("sample", model, "--count", 1, "--steps", 1)
    assert (code, err.count("\n")) == (2, 1)
    assert "--force" in err
    assert (tmp_path / "samples.png").read_text() == "precious"
    assert sddpm("sample", model, "--count", 1, "--steps", 1, "--force")[0] == 0
    assert Image.open(tmp_path / "samples.png").format == "PNG"


def test_a_folder_is_never_replaced_by_a_file(sddpm, model, tmp_path):
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "photo.png").write_text("precious")
    for options in (("--out", "album"), ("--out", "album", "--format", "grid", "--force")):
        assert sddpm("sample", model, "--count", 1, "--steps", 1, *options)[0] == 2
    assert sddpm("sample", model, "--count", 1, "--steps", 1, "--out", "album", "--force")[0] == 0
    assert (tmp_path / "album" / "photo.png").read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--steps", 0), "1 to 1000"),
        (("--steps", -1), "1 to 1000"),
        (("--steps", 1001), "1 to 1000"),
        (("--solver", "euler"), "ddpm, ddim"),
        (("--solver", "unipc", "--eta", 0.5), "eta needs the solver ddim"),
        (("--count", 0), "at least 1"),
        (("--count", 1, "--seeds", "1"), "not both"),
        (("--seeds", "5-3"), "neither a seed nor a range"),
        (("--batch-size", 0), "nothing to sample"),
        (("--v-threshold", "high"), "a number such as"),
        (("--v-threshold", "-1"), "positive"),
        (("--v-threshold", "0.9xx"), "a multiple such as"),
        (("--v-threshold", "nothing*=1"), "no neuron layer matches"),
        (("--out", "x.gif"), "FILE.png"),
        (("--format", "gif"), "grid, folder, zip, npz"),
        (("--device", "tpu"), "not available"),
        (("--scale", 0), "at least 1"),
        (("--strip", "samples.png"), "different names"),
        (("--strip", "x.jpg"), "--strip x.jpg: a file name that ends in .png is needed"),
        (("--format", "grid", "--out", "x.jpg"), "--out x.jpg: a file name that ends in .png is needed"),
        (("--device", "cpu:"), "device 'cpu:' is not available here"),
        (("--scale", 2, "--out", "x"), "--scale is only for a grid or strip: leave it out"),
        (("--columns", 2, "--out", "x.npz"), "--columns is only for a grid: leave it out"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(sddpm, model, tmp_path, options, message):
    code, out, err = sddpm("sample", model, *options)
    error = err.splitlines()[-1]
    assert (code, out) == (2, "")
    assert error.startswith("error: ") and message in error
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_an_absent_model(sddpm, tmp_path):
    code, _, err = sddpm("sample", tmp_path / "nothing")
    assert code == 2 and err.startswith(f"error: no model at {tmp_path / 'nothing'}: there is no such folder, and")
    names = "cifar10, fashion-mnist, fashion-mnist-4, fashion-mnist-small, mnist, mnist-4"
    assert err.endswith(f"come with sddpm are {names}\n")
    assert err.count("\n") == 1


def stopping_after(count):
    for seed in range(count):
        yield [seed], torch.zeros(1, 1, 4, 4)
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["grid", "zip", "npz"])
def test_a_file_is_whole_or_absent(tmp_path, kind):
    with pytest.raises(KeyboardInterrupt):
        write_images(kind, tmp_path / "out", stopping_after(2))
    assert list(tmp_path.iterdir()) == []


def test_finished_images_stay_in_a_folder(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_images("folder", tmp_path / "out", stopping_after(2))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000000.png", "000001.png"]


def test_colour_images_survive_writing(tmp_path):
    images = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    write_images("folder", tmp_path / "out", [([12], images)])
    pixels = np.asarray(Image.open(tmp_path / "out" / "000012.png"))
    assert np.array_equal(pixels, (images[0] * 255).round().byte().permute(1, 2, 0).numpy())


@pytest.mark.parametrize("last", [2**63, 10**19, 10**20, "0" * 5000])
def test_seeds_of_more_than_63_bits_are_refused(last):
    for seeds in (f"0-{last}", f"5,{last}"):
        with pytest.raises(UserError, match=r"`seeds` must be numbers below 2\^63, not "):
            parse_seeds(seeds, None)


def test_a_range_of_all_seeds_names_too_many():
    with pytest.raises(UserError, match="names more than 1,000,000 seeds"):
        parse_seeds(f"0-{2**63 - 1}", None)
    assert parse_seeds(f"{2**63 - 2}-{2**63 - 1}", None) == [2**63 - 2, 2**63 - 1]


def test_parsing_seeds():
    assert parse_seeds("0-3, 100,5", None) == [0, 1, 2, 3, 100, 5]
    assert parse_seeds(None, 3) == [0, 1, 2]
    assert parse_seeds(None, None) == list(range(16))
    for bad in ("", "1,", "a", "1-", "-1", "1.5", "3,1-5"):
        with pytest.raises(UserError):
            parse_seeds(bad, None)


def test_parsing_thresholds():
    assert parse_thresholds([]) is None
    assert parse_thresholds(["0.999"]) == parse_thresholds(["trained", "0.999"]) == 0.999
    assert parse_thresholds(["trained"]) == parse_thresholds(["up*=0.5", "0.9", "trained"]) == {}
    assert parse_thresholds(["0.9", "trained", "up*=0.5"]) == {"up*": 0.5}
    mixed = parse_thresholds(["up*=0.5", "0.9", "up*=0.7"])
    assert isinstance(mixed, dict) and list(mixed.items()) == [("*", 0.9), ("up*", 0.7)]


def test_the_format_is_in_the_name(tmp_path):
    formats = {"a.png": "grid", "a.PNG": "grid", "a": "folder", "a.zip": "zip", "a.npz": "npz"}
    assert {name: output_format(tmp_path / name, None) for name in formats} == formats
    assert output_format(tmp_path / "a.png", "folder") == "folder"
    assert output_format(tmp_path, None) == "folder"


def test_help_does_not_wait_for_torch():
    script = (
        "import sys; from typer.testing import CliRunner; from sddpm.cli.main import app\n"
        "result = CliRunner().invoke(app, ['sample', '--help'])\n"
        "assert result.exit_code == 0 and 'MODEL' in result.output\n"
        "assert not {'torch', 'diffusers', 'numpy'} & set(sys.modules), 'heavy imports'"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_early_exit(sddpm, model):
    code, out, _ = sddpm("sample", model, "--count", 2, "--steps", 2, "--exit-tolerance", 1e6)
    assert code == 0 and "; 2 of 2 SNN time steps" in out
    code, _, err = sddpm("sample", model, "--exit-tolerance", "-1", "--out", "other.png")
    assert code == 2 and err.startswith("error: the exit tolerance must be a number of at least 0")


@pytest.mark.parametrize("steps", ["850,999", "999,999", "1000,3", "999,-1", "a", "", "9.5,3", "999,850 --steps 3"])
def test_time_steps_that_do_not_fall_are_refused_in_a_line(sddpm, model, steps):
    code, out, err = sddpm("sample", model, "--timesteps", *steps.split(" "))
    assert (code, out) == (2, "") and len(err.strip().splitlines()) == 1
    assert err.startswith("error: ") and "--timesteps" in err


def test_time_steps_of_the_command_line_are_those_of_python(sddpm, model, tmp_path):
    arguments = ("--timesteps", "999,640,40", "--seeds", "3", "--engine", "eager", "--device", "cpu")
    code, out, err = sddpm("sample", model, *arguments, "--out", "a.npz")
    assert code == 0 and "at 3 time steps, 999, 640, 40" in out, err
    images = load_pipeline(model)(seeds=[3], timesteps=(999, 640, 40), engine="eager", output_type="pt").images
    assert np.array_equal(np.load(tmp_path / "a.npz")["arr_0"][0, ..., 0], unit_to_uint8(images)[0, 0].numpy())


def test_a_named_sampler_is_chosen_and_listed(sddpm, model, tmp_path):
    shutil.copytree(model, tmp_path / "kept")
    store_sampler(tmp_path / "kept", "fast", Sampler("dpm++", timesteps=(999, 640, 40), x0_scale=1.1))
    store_sampler(tmp_path / "kept", "three", Sampler("ddim", 3), default=False)
    listed = sddpm("info", "kept")[1]
    assert "sampler      fast, the default: dpm++ at 3 time steps, 999, 640, 40, x0_scale 1.1" in listed
    assert "sampler      three: ddim with 3 steps" in listed
    for name, options, words in (
        ("a", (), "dpm++ at 3 time steps, 999, 640, 40"),
        ("b", ("--sampler", "fast"), "dpm++ at 3 time steps, 999, 640, 40"),
        ("c", ("--solver", "dpm++", "--timesteps", "999,640,40", "--x0-scale", 1.1), "dpm++ at 3 time steps"),
        ("d", ("--sampler", "three"), "ddim with 3 steps"),
    ):
        code, out, err = sddpm("sample", "kept", "--count", 2, "--device", "cpu", *options, "--out", f"{name}.npz")
        assert code == 0 and words in out, err
    a, b, c = (np.load(tmp_path / f"{name}.npz")["arr_0"] for name in "abc")
    assert np.array_equal(a, b) and np.array_equal(a, c)
    code, out, err = sddpm("sample", "kept", "--sampler", "slow")
    assert (code, out) == (2, "") and err == "error: unknown sampler 'slow': choose one of fast, three, own\n"
