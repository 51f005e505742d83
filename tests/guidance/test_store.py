"""Thresholds kept with a model."""

import json

import pytest
import torch

from sddpm.errors import UserError
from sddpm.evaluation.sampling import model_digest
from sddpm.guidance import store_guidance, store_sampler, store_x0_scale
from sddpm.pipelines import Sampler, SpikingDiffusionPipeline, load_pipeline

QUICK = {"seeds": range(4), "num_inference_steps": 2, "output_type": "pt", "progress": False}
GUIDANCE = {"v_threshold": 0.8, "trained_v_threshold": 1.0, "metric": "fad", "interval_95": [-1.5, -0.5]}


def sample(pipe, **options):
    return pipe(**QUICK, **options).images


def test_what_is_kept_is_sampled_with_and_nothing_else_changes(model):
    as_trained = sample(load_pipeline(model))
    before = (model / "model_index.json").read_text()
    weights = (model / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    digest = model_digest(model)
    store_guidance(model, GUIDANCE)
    pipe = load_pipeline(model)
    assert pipe.guided_thresholds == 0.8
    assert not torch.equal(sample(pipe), as_trained)
    assert torch.equal(sample(pipe), sample(pipe, v_threshold=0.8))
    assert torch.equal(sample(pipe, v_threshold=1.0), as_trained)
    assert torch.equal(sample(pipe, v_threshold={}), as_trained)
    assert {neuron.v_threshold for neuron in pipe.unet.neurons().values()} == {1.0}
    assert (model / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == weights
    assert json.loads((model / "unet" / "config.json").read_text())["v_threshold"] == 1.0
    # Samples made before are samples of this model: they are told apart by their thresholds.
    assert model_digest(model) == digest
    store_guidance(model, None)
    assert (model / "model_index.json").read_text() == before


def test_a_scale_is_kept_beside_the_thresholds_and_taken_out(model):
    before, digest = (model / "model_index.json").read_text(), model_digest(model)
    as_trained = sample(load_pipeline(model))
    store_guidance(model, GUIDANCE, 0.9)
    assert (load_pipeline(model).guided_thresholds, load_pipeline(model).x0_scale) == (0.8, 0.9)
    store_guidance(model, GUIDANCE)
    assert load_pipeline(model).x0_scale == 0.9
    store_x0_scale(model, 0.8)
    assert (load_pipeline(model).guided_thresholds, load_pipeline(model).x0_scale) == (0.8, 0.8)
    store_guidance(model, None)
    images = sample(load_pipeline(model))
    assert torch.equal(images, sample(load_pipeline(model), x0_scale=0.8)) and not torch.equal(images, as_trained)
    assert model_digest(model) == digest
    store_x0_scale(model, 1.0)
    assert (model / "model_index.json").read_text() == before
    with pytest.raises(UserError, match="x0_scale must be a positive number"):
        store_x0_scale(model, -1.0)


@pytest.mark.parametrize(
    "v_threshold", [0.8, "0.9x", {"up.*": 0.8}, {"early": 0.9, "late": {"middle.*": 1.1, "up.*": 0.9}, "boundary": 500}]
)
def test_it_survives_saving_and_loading(model, tmp_path, v_threshold):
    store_guidance(model, {**GUIDANCE, "v_threshold": v_threshold})
    images = sample(load_pipeline(model))
    for load in (load_pipeline, SpikingDiffusionPipeline.from_pretrained):
        pipe = load(model)
        pipe.save_pretrained(tmp_path / load.__name__)
        again = load(tmp_path / load.__name__)
        assert again.config["threshold_guidance"] == {**GUIDANCE, "v_threshold": v_threshold}
        assert torch.equal(sample(again), images)


def test_a_run_folder_means_its_model(model):
    store_guidance(model.parent, GUIDANCE)
    assert load_pipeline(model).guided_thresholds == 0.8


def test_an_interrupted_write_leaves_the_model_as_it_was(model, monkeypatch):
    before = (model / "model_index.json").read_bytes()

    def fails(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sddpm.files.atomic.os.replace", fails)
    with pytest.raises(UserError, match="No space left"):
        store_guidance(model, GUIDANCE)
    assert (model / "model_index.json").read_bytes() == before
    assert sorted(path.name for path in model.iterdir()) == ["model_index.json", "pipeline.py", "scheduler", "unet"]


@pytest.mark.parametrize(
    "damaged",
    [
        {"metric": "fad"},
        {"v_threshold": 0},
        {"v_threshold": "low"},
        {"v_threshold": {}},
        {"v_threshold": {"up.*": -1.0}},
        {"v_threshold": {"early": 1.0, "late": 1.0}},
        {"v_threshold": True},
        [],
    ],
)
def test_damaged_guidance_is_refused_when_loading(model, damaged):
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, "threshold_guidance": damaged}))
    with pytest.raises(UserError, match=r"model_index.json: threshold_guidance is damaged"):
        load_pipeline(model)
    store_guidance(model, None)  # and can be taken out
    assert load_pipeline(model).guided_thresholds is None


def test_thresholds_for_layers_that_the_model_lacks(model):
    store_guidance(model, {"v_threshold": {"head.*": 0.9}})
    with pytest.raises(UserError, match=r"no neuron layer matches 'head.\*'"):
        sample(load_pipeline(model))


def test_no_model_there(tmp_path):
    with pytest.raises(UserError, match="is not a model"):
        store_guidance(tmp_path, GUIDANCE)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Sampler(solver="unip"), "sampler 'bad': unknown solver 'unip'"),
        (Sampler(timesteps=(5, 9)), "sampler 'bad': `timesteps` must be"),
        (Sampler(x0_scale=-1.0), "sampler 'bad': x0_scale must be a positive number"),
    ],
)
def test_a_sampler_with_which_the_model_could_not_be_loaded_is_not_stored(model, sampler, message):
    before = (model / "model_index.json").read_text()
    with pytest.raises(UserError, match=message):
        store_sampler(model, "bad", sampler)
    assert (model / "model_index.json").read_text() == before


def test_a_distilled_model_gets_no_sampler(model):
    config = model / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "timesteps": [999, 500], "distilled": True}))
    with pytest.raises(UserError, match="at t = 999, 500: it has no other sampler"):
        store_sampler(model, "fast", Sampler("unipc", 3))
