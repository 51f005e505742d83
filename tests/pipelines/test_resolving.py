"""One meaning of a model's name, whatever is given it."""

import shutil

import pytest
from diffusers import DiffusionPipeline

from sddpm import SpikingDiffusionPipeline, SpikingUNet2DModel, load_pipeline
from sddpm.errors import UserError
from sddpm.pipelines.resolving import pipeline_folder
from sddpm.pretrained import find_pretrained


def unet_alone(name):
    return SpikingUNet2DModel.from_pretrained(name, subfolder="unet")


def unet_of_whole(name):
    return SpikingUNet2DModel.from_pretrained(name)


READERS = {
    "load_pipeline": lambda name: load_pipeline(name).unet,
    "SpikingDiffusionPipeline": lambda name: SpikingDiffusionPipeline.from_pretrained(name).unet,
    "SpikingUNet2DModel": unet_of_whole,
    "SpikingUNet2DModel, subfolder": unet_alone,
}


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A saved model, and a run that holds it."""
    shutil.copytree(find_pretrained("fashion-mnist-small"), tmp_path / "saved")
    shutil.copytree(tmp_path / "saved", tmp_path / "runs" / "first" / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "name", ["fashion-mnist-small", "fashion_mnist_small", "saved", "./saved", "runs/first", "runs/first/model"]
)
def test_every_reader_takes_every_name(models, reader, name):
    assert sum(p.numel() for p in READERS[reader](name).parameters()) == 2_480_864


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("name", "meant"),
    [("fashon-mnist", "fashion-mnist"), ("fashion_mnits", "fashion-mnist"), ("savd", "saved"), ("nmist", "mnist")],
)
def test_what_is_no_model_is_asked_what_was_meant(models, reader, name, meant):
    with pytest.raises(UserError, match=rf"^no model at {name}: there is no such folder.* did you mean {meant}\?$"):
        READERS[reader](name)


def test_a_run_that_is_not_there_names_the_one_beside(models, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"did you mean runs/first\?$"):
        pipeline_folder("runs/frist")
    with pytest.raises(UserError, match=r"did you mean .*/runs/first\?$"):
        pipeline_folder(models / "runs" / "frist")


def test_the_unet_of_a_folder_by_itself_is_read_as_ever(models):
    assert SpikingUNet2DModel.from_pretrained("saved/unet").config.T == 4


def test_plain_diffusers_reads_what_was_saved_here(models):
    load_pipeline("runs/first").save_pretrained("anew")
    found = DiffusionPipeline.from_pretrained("anew", trust_remote_code=True)
    assert isinstance(found, SpikingDiffusionPipeline)
