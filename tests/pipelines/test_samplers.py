"""Ways of sampling that are kept with a model under names."""

import json

import numpy as np
import pytest

from sddpm.diffusion.solvers import make_scheduler
from sddpm.errors import UserError
from sddpm.evaluation.sampling import SamplingSettings, model_digest, sampling_key
from sddpm.guidance import store_sampler, store_x0_scale
from sddpm.pipelines import Sampler, SamplingOptions, SpikingDiffusionPipeline, load_pipeline
from tests.helpers.standins import PointwiseModel

FAST = Sampler("unipc", timesteps=(999, 640, 300, 40), x0_scale=1.05, about={"metric": "kad"})
BEST = Sampler("sde-dpm++", 20)


@pytest.fixture
def model(tmp_path):
    SpikingDiffusionPipeline(PointwiseModel(), make_scheduler("ddim"), x0_scale=1.01).save_pretrained(tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def pipe(model):
    store_sampler(model, "best", BEST, default=False)
    store_sampler(model, "fast", FAST)
    return load_pipeline(model)


def images(pipe, **options):
    return pipe(seeds=[0, 3], output_type="np", progress=False, **options).images


def test_a_named_one_samples_as_its_options_do_by_hand(pipe):
    fast = images(pipe, solver="unipc", timesteps=FAST.timesteps, x0_scale=1.05)
    assert np.array_equal(images(pipe, sampler="fast"), fast)
    assert np.array_equal(images(pipe, sampler="best"), images(pipe, solver="sde-dpm++", num_inference_steps=20))
    assert not np.array_equal(images(pipe, sampler="best"), fast)
    one_changed = images(pipe, solver="unipc", timesteps=FAST.timesteps, x0_scale=1.2)
    assert np.array_equal(images(pipe, sampler="fast", x0_scale=1.2), one_changed)
    more = images(pipe, solver="unipc", num_inference_steps=7, x0_scale=1.05)
    assert np.array_equal(images(pipe, sampler="fast", num_inference_steps=7), more)


def test_the_default_one_is_put_aside_by_solver_steps_or_time_steps(pipe):
    assert pipe.default_sampler == "fast" and pipe.samplers == {"best": BEST, "fast": FAST}
    assert np.array_equal(images(pipe), images(pipe, sampler="fast"))
    assert np.array_equal(images(pipe, sampler="own"), images(pipe, solver="ddim", num_inference_steps=50))
    own = {"solver": "ddim", "x0_scale": 1.01}
    assert np.array_equal(images(pipe, num_inference_steps=4), images(pipe, num_inference_steps=4, **own))
    assert np.array_equal(images(pipe, timesteps=(999, 5)), images(pipe, timesteps=(999, 5), **own))
    assert pipe.sampler(SamplingOptions()) == "unipc at 4 time steps, 999, 640, 300, 40"
    assert pipe.sampler(SamplingOptions(sampler="own")) == "ddim with 50 steps"


@pytest.mark.parametrize("options", [{}, {"sampler": "own"}, {"sampler": "best"}, {"sampler": "fast", "x0_scale": 1.2}])
def test_samples_are_told_apart_by_what_a_name_means(pipe, options):
    once = pipe.resolve_options(SamplingOptions(**options))
    assert pipe.resolve_options(once) == once and once.sampler is None
    plain = {name: value for name, value in vars(once).items() if name not in ("batch_size", "engine")}
    key = sampling_key("m", SamplingSettings(**options), pipe)
    assert key == sampling_key("m", SamplingSettings(**plain), pipe)
    other = SpikingDiffusionPipeline(pipe.unet, pipe.scheduler, x0_scale=1.01)
    assert key == sampling_key("m", SamplingSettings(**plain), other)


def test_storing_changes_nothing_else_and_can_be_undone(model):
    before, digest = (model / "model_index.json").read_text(), model_digest(model)
    store_sampler(model, "fast", FAST)
    store_sampler(model, "best", BEST, default=False)
    assert model_digest(model) == digest
    store_x0_scale(model, 1.03)
    assert load_pipeline(model).samplers["fast"] == FAST and load_pipeline(model).default_sampler == "fast"
    store_x0_scale(model, 1.01)
    store_sampler(model, "fast", None)
    assert load_pipeline(model).default_sampler is None and list(load_pipeline(model).samplers) == ["best"]
    store_sampler(model, "best", None)
    assert (model / "model_index.json").read_text() == before
    with pytest.raises(UserError, match="has no saved sampler to remove"):
        store_sampler(model, "best", None)
    for name in ("own", "1st", "a b", ""):
        with pytest.raises(UserError, match="name"):
            store_sampler(model, name, FAST)


def test_they_survive_saving_and_loading(pipe, tmp_path):
    for load in (load_pipeline, SpikingDiffusionPipeline.from_pretrained):
        pipe.save_pretrained(tmp_path / load.__name__)
        again = load(tmp_path / load.__name__)
        assert again.samplers == pipe.samplers and np.array_equal(images(again), images(pipe))


@pytest.mark.parametrize(
    "damage",
    [
        {"samplers": []},
        {"samplers": {"fast": 3}},
        {"samplers": {"fast": {"solver": "euler"}}},
        {"samplers": {"fast": {"timesteps": [3, 5]}}},
        {"samplers": {"fast": {"timesteps": [1000]}}},
        {"samplers": {"fast": {"timesteps": [9, 5], "num_inference_steps": 3}}},
        {"samplers": {"fast": {"num_inference_steps": 0}}},
        {"samplers": {"fast": {"num_inference_steps": "9"}}},
        {"samplers": {"fast": {"x0_scale": -1}}},
        {"samplers": {"fast": {"about": 3}}},
        {"samplers": {"fast": {"speed": 3}}},
        {"samplers": {"own": {}}},
        {"sampler": "slow"},
        {"sampler": ["fast"]},
    ],
)
def test_damaged_ones_are_refused_in_a_line(pipe, model, damage):
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps(index | damage))
    with pytest.raises(UserError, match=r"model_index\.json: ") as caught:
        load_pipeline(model)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_refused_with_the_known_ones(pipe):
    with pytest.raises(UserError, match="unknown sampler 'slow': choose one of best, fast, own"):
        images(pipe, sampler="slow")
