import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sddpm.diffusion.solvers import make_scheduler
from sddpm.errors import UserError
from sddpm.pipelines import SpikingDiffusionPipeline, load_pipeline
from tests.helpers.small_pipeline import pipeline_of

QUICK = {"seeds": [0, 1], "num_inference_steps": 3, "output_type": "pt", "progress": False}


@pytest.fixture
def folder(spiking, tmp_path):
    spiking.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_what_is_saved_is_what_is_loaded(spiking, folder):
    images = spiking(**QUICK).images
    loaded = load_pipeline(folder)
    assert torch.equal(loaded(**QUICK).images, images)
    assert loaded.scheduler.config.beta_schedule == "squaredcos_cap_v2"
    assert type(loaded.scheduler).__name__ == "RespacedDDIMScheduler"
    assert torch.equal(SpikingDiffusionPipeline.from_pretrained(folder)(**QUICK).images, images)


def test_a_run_folder_means_its_model(folder):
    assert load_pipeline(folder.parent).unet.config.T == 2


def test_thresholds_set_for_good_are_saved(spiking, tmp_path):
    spiking.unet.set_v_threshold(0.9)
    images = spiking(**QUICK).images
    spiking.save_pretrained(tmp_path / "other")
    assert torch.equal(load_pipeline(tmp_path / "other")(**QUICK).images, images)


def assert_refused(path, message):
    with pytest.raises(UserError, match=message) as caught:
        load_pipeline(path)
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_models(tmp_path):
    assert_refused(tmp_path / "absent", "no such folder")
    assert_refused(tmp_path, "model_index.json")
    (tmp_path / "file").write_text("x")
    assert_refused(tmp_path / "file", "model_index.json")


@pytest.mark.parametrize("tenths", range(10))
def test_truncated_weights(folder, tenths):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) * tenths // 10])
    assert_refused(folder, "diffusion_pytorch_model.safetensors is damaged")


def test_weights_that_do_not_fit(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if name.endswith("conv1.weight"))
    save_file({key: value for key, value in tensors.items() if key != name}, weights)
    assert_refused(folder, f"missing weights {name}")
    save_file({**tensors, "surplus": torch.ones(1)}, weights)
    assert_refused(folder, "unexpected weights surplus")
    save_file({**tensors, name: torch.ones(2, 2)}, weights)
    assert_refused(folder, f"{name} expected shape")


def test_pickled_weights_are_not_read(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), folder / "unet" / "diffusion_pytorch_model.bin")
    weights.unlink()
    assert_refused(folder, "no file named diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_damaged_json(folder, name, content):
    (folder / name).write_text(content)
    assert_refused(folder, f"{name.split('/')[-1]} is damaged")


def test_an_impossible_model_config(folder):
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "T": 0}))
    assert_refused(folder, "T must be")


@pytest.mark.parametrize("unet", [["os", "path"], ["builtins", "dict"], ["sddpm.models.unet", "Level"], None])
def test_an_index_that_names_something_else(folder, unet):
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "unet": unet}))
    assert_refused(folder, "names an unknown unet")


def test_a_pipeline_of_another_kind(folder):
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "DDPMPipeline"}))
    assert_refused(folder, "contains a DDPMPipeline")


@pytest.mark.parametrize(
    ("config", "names", "message"),
    [({"num_train_timesteps": 20}, None, "1000 time steps, but its scheduler 20"), ({}, ["a"], "1 class_names")],
)
def test_parts_that_do_not_fit_each_other(spiking, folder, config, names, message):
    scheduler = make_scheduler("ddim", **config)
    with pytest.raises(UserError, match=message):
        SpikingDiffusionPipeline(spiking.unet, scheduler, class_names=names)
    scheduler.save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "class_names": names}))
    assert_refused(folder, f"model_index.json: .*{message}")


def test_a_model_may_have_more_classes_than_names():
    assert pipeline_of(num_classes=3, names=["a", "b"]).class_names == ["a", "b"]
    with pytest.raises(UserError, match="3 class_names, but the network has 2 classes"):
        pipeline_of(num_classes=2, names=["a", "b", "c"])


def test_whole_numbers_as_the_range_of_signals(tmp_path):
    pipeline_of(dims=1, spread=[0, 5]).save_pretrained(tmp_path)
    assert load_pipeline(tmp_path).signal_range == (0.0, 5.0)
    index = tmp_path / "model_index.json"
    for stored, message in (([0, 5], None), ([0, "5"], "two numbers"), ([0, 5, 6], "two numbers"), ([0, True], "two")):
        index.write_text(json.dumps({**json.loads(index.read_text()), "signal_range": stored}))
        if message is None:
            assert load_pipeline(tmp_path).signal_range == (0.0, 5.0)
        else:
            assert_refused(tmp_path, message)


def test_weights_saved_as_a_variant(tmp_path):
    pipe = pipeline_of()
    pipe.save_pretrained(tmp_path, variant="fp16")
    assert not (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").exists()
    found, expected = load_pipeline(tmp_path).unet.state_dict(), pipe.unet.state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
