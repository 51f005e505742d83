"""Models that come with the package: loaded by name in every way that loads a model, never written to."""

import json
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from typer.testing import CliRunner

from sddpm import SpikingDiffusionPipeline, load_pipeline
from sddpm.cli.main import app
from sddpm.diffusion.timesteps import is_distilled
from sddpm.errors import UserError
from sddpm.guidance import store_guidance
from sddpm.pretrained import find_pretrained, is_pretrained, pretrained_names
from sddpm.training import load_config


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_models_of_the_readme_are_there():
    names = {"cifar10", "fashion-mnist", "fashion-mnist-4", "fashion-mnist-small", "mnist", "mnist-4"}
    assert names <= set(pretrained_names())


@pytest.mark.parametrize("name", pretrained_names())
def test_a_model_is_whole_and_small_and_has_a_card(name):
    folder = find_pretrained(name)
    assert folder is not None and is_pretrained(folder)
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 10e6
    card = (folder / "README.md").read_text()
    assert f"# {name}" in card and "Not measured." not in card
    config = load_config(folder / "config.yaml")
    assert config.data.dataset == name.removesuffix("-small").removesuffix("-4") and config.data.path is None
    pipe = load_pipeline(name)
    assert f"{sum(p.numel() for p in pipe.unet.parameters()):,} parameters" in card
    assert pipe.unet.config.T == 4


@pytest.mark.parametrize("name", pretrained_names())
def test_both_readers_give_the_same_float32_weights_and_finite_images(name):
    pipe, diffusers_reads = load_pipeline(name), SpikingDiffusionPipeline.from_pretrained(name)
    weights = diffusers_reads.unet.state_dict()
    for key, value in pipe.unet.state_dict().items():
        assert torch.equal(value, weights[key]) and value.dtype == weights[key].dtype != torch.float16
    steps = {} if is_distilled(pipe.scheduler.config) else {"num_inference_steps": 2}
    images = pipe(seeds=[3], output_type="np", progress=False, **steps).images
    assert images.shape == (1, 32, 32, pipe.unet.config.in_channels) and images.std() > 0.05  # no empty canvas


@pytest.mark.parametrize("name", pretrained_names())
def test_plain_diffusers_reads_its_folder(name):
    found = DiffusionPipeline.from_pretrained(find_pretrained(name), trust_remote_code=True)
    assert isinstance(found, SpikingDiffusionPipeline) and found.x0_scale == load_pipeline(name).x0_scale


def test_a_damaged_copy_is_refused(tmp_path):
    shutil.copytree(find_pretrained("mnist"), tmp_path / "copy")
    weights = tmp_path / "copy" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(UserError, match="its hash differs"):
        load_pipeline(tmp_path / "copy")


def test_a_folder_of_data_of_that_name_does_not_hide_the_model_but_a_model_does(tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").touch()
    assert find_pretrained("mnist") is not None
    shutil.copytree(find_pretrained("mnist"), tmp_path / "mnist", dirs_exist_ok=True)
    assert find_pretrained("mnist") is None
    assert load_pipeline("mnist").unet.config.T == 4


def test_what_is_no_model_is_told_the_names():
    assert find_pretrained("fashion-mnits") is None
    names = "cifar10, fashion-mnist, fashion-mnist-4, fashion-mnist-small, mnist, mnist-4"
    with pytest.raises(UserError, match=rf"no model at fashion-mnits.*{names}"):
        load_pipeline("fashion-mnits")


def test_the_package_is_not_written_to():
    before = (find_pretrained("mnist") / "model_index.json").read_bytes()
    with pytest.raises(UserError, match=r"comes with sddpm and must not be changed: copy it first"):
        store_guidance("mnist", {"v_threshold": 0.99})
    for command in (["guide", "mnist", "--metric", "fad"], ["moments", "mnist"]):
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, UserError) and "comes with sddpm" in str(result.exception)
    assert (find_pretrained("mnist") / "model_index.json").read_bytes() == before


def test_it_is_evaluated_by_name_and_the_data_set_with_its_split(tmp_path, shared_dir):
    options = ["--data", str(shared_dir / "data" / "mnist"), "--reference", "mnist", "--metric", "fad"]
    options += ["--fad-weights", str(shared_dir / "data/fad/mnist_64.pth"), "--samples", "200", "--no-copies"]
    options += ["--image-size", "32", "--force"]
    for source, kind, sampling in (("mnist", "model", ["--steps", "1"]), ("mnist:test", "images", [])):
        out = tmp_path / f"{kind}.json"
        result = CliRunner().invoke(
            app, ["evaluate", source, *sampling, *options, "--out", str(out), "--work", str(tmp_path)]
        )
        assert result.exit_code == 0, result.exception
        assert json.loads(out.read_text())["samples"]["kind"] == kind


def test_sampling_by_name_from_the_command_line(tmp_path):
    result = CliRunner().invoke(app, ["sample", "fashion-mnist", "--count", "2", "--steps", "2", "--out", "s.png"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "s.png").is_file()
