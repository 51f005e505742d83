"""The twin without spikes goes through everything that the spiking network goes through."""

import pytest
import torch
from safetensors.torch import load_file

from sddpm.errors import UserError
from sddpm.models import ANNUNet2DModel
from sddpm.pipelines import load_pipeline
from sddpm.training import load_config, train
from sddpm.training.checkpoint import TENSOR_FILES, checkpoint_path

SETTINGS = [
    "model.kind=ann", "model.base_channels=8", "model.channel_mult=[1,2]", "model.num_res_blocks=1",
    "model.attention_resolutions=[4]", "data.image_size=8", "train.batch_size=8", "train.steps=4",
    "train.checkpoint_every=2", "train.sample_every=2", "train.sample_count=1", "train.sample_steps=1",
    "train.lr_schedule=constant", "train.precision=float32", "train.tensorboard=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ann") / "run"
    train(load_config("digits", SETTINGS), folder, progress=False)
    return folder


def tensors(folder, step):
    return {f"{name}/{key}": value for name in TENSOR_FILES
            for key, value in load_file(checkpoint_path(folder, step) / name).items()}  # fmt: skip


def test_resumed_has_the_same_bits(trained, tmp_path):
    train(load_config("digits", [*SETTINGS, "train.steps=2"]), tmp_path / "run", progress=False)
    train(load_config("digits", SETTINGS), tmp_path / "run", resume=True, progress=False)
    whole, parts = tensors(trained, 4), tensors(tmp_path / "run", 4)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_saved_and_sampled_by_every_solver(trained):
    pipe = load_pipeline(trained)
    assert isinstance(pipe.unet, ANNUNet2DModel)
    for solver in ("ddim", "ddpm", "dpm++"):
        images = pipe(seeds=[0, 1], num_inference_steps=3, solver=solver, output_type="pt", progress=False).images
        assert images.shape == (2, 1, 8, 8) and images.isfinite().all()
    with pytest.raises(UserError, match="v_threshold was given, but ANNUNet2DModel has no spiking neurons"):
        pipe(seeds=[0], v_threshold=0.9, progress=False)


def test_starts_from_its_own_weights_and_refuses_those_of_spikes(trained, tmp_path):
    config = load_config("digits", [*SETTINGS, "train.steps=1", "train.lr=1e-30", "train.weight_decay=0"])
    train(config, tmp_path / "again", init_from=trained, progress=False)
    given, kept = (
        load_pipeline(trained).unet.state_dict(),
        load_file(checkpoint_path(tmp_path / "again", 1) / TENSOR_FILES[0]),
    )
    assert all(torch.equal(given[key], kept[key]) for key in given)
    spiking = load_config("digits", ["model.base_channels=8", "model.channel_mult=[1,2]", "data.image_size=8"])
    with pytest.raises(UserError, match="does not fit the config's model section: it lacks"):
        train(spiking, tmp_path / "spiking", init_from=trained, progress=False)


def test_a_penalty_on_spikes_is_refused(tmp_path):
    with pytest.raises(UserError, match="no spiking neurons"):
        train(load_config("digits", [*SETTINGS, "train.rate_penalty=1"]), tmp_path / "run", progress=False)
