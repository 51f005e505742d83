"""Moments measured on models whose answer is known, and what a folder keeps of them."""

import json
from types import SimpleNamespace

import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from sddpm.diffusion.moments import Moments
from sddpm.diffusion.schedule import NoiseSchedule
from sddpm.diffusion.solvers import make_scheduler
from sddpm.errors import UserError
from sddpm.pipelines import SpikingDiffusionPipeline, load_pipeline
from sddpm.pipelines.moments import keep_moments, measure_moments, read_moments
from tests.helpers.small_pipeline import pipeline_of

A = NoiseSchedule(num_train_timesteps=20, beta_end=0.4).alphas_cumprod


class LinearModel(ModelMixin, ConfigMixin):
    """Answers sqrt(1 - a) x_t, the best linear guess of the noise for data of unit variance; or 0, the same as v."""

    @register_to_config
    def __init__(self, sample_size: int = 8, in_channels: int = 1, v: bool = False):
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def slope(self, t):
        return 0.0 if self.config.v else (1 - A[t].item()) ** 0.5

    def forward(self, sample, timestep):
        return SimpleNamespace(sample=self.slope(timestep) * sample)


@pytest.fixture
def spiking():
    """With 20 diffusion steps, so that all of them are soon asked."""
    schedule = make_scheduler("ddim", num_train_timesteps=20, beta_schedule="cosine")
    return SpikingDiffusionPipeline(pipeline_of(num_train_timesteps=20).unet, schedule)


def coins(count, seed=123):  # another seed than that of the noise: both would come from the same numbers
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, 1, 8, 8, generator=generator) < 0.5).to(torch.uint8) * 255


def unlabelled(count, batch_size=64):
    return [(images, None) for images in coins(count).split(batch_size)]


def linear(v=False):
    kind = "v_prediction" if v else "epsilon"
    scheduler = make_scheduler("ddim", num_train_timesteps=20, beta_end=0.4, prediction_type=kind)
    return SpikingDiffusionPipeline(LinearModel(v=v), scheduler)


@pytest.mark.parametrize("v", [False, True])
def test_moments_of_a_linear_answer(v):
    """epsilon = sqrt(1 - a) x_t, and v = 0 says the same: h = (1 - a) E x_t^2 = 1 - a."""
    found = measure_moments(linear(v), unlabelled(200, 64), count=200, progress=False)
    z = (torch.tensor(found.h) - (1 - A)) / torch.tensor(found.standard_error)
    assert z.abs().max() < 4
    assert max(found.standard_error) < 0.02
    assert found.samples == 200


class GaussianClasses(LinearModel):
    """The exact noise for pixels of mean MEANS[class] and deviation STD, the last class being none."""

    def forward(self, sample, timestep, class_labels=None):
        labels = torch.full((len(sample),), 2) if class_labels is None else class_labels
        a, mean = A[timestep], MEANS[labels].view(-1, 1, 1, 1)
        return SimpleNamespace(sample=(1 - a) ** 0.5 * (sample - a**0.5 * mean) / (a * STD**2 + 1 - a))


MEANS, STD = torch.tensor([-0.4, 0.3, 0.1], dtype=torch.float64), 0.2


@pytest.mark.parametrize("asked", [True, False])
def test_moments_of_classes_are_those_of_their_gaussians(asked):
    """Asked for the class, (1 - a) / (a s^2 + 1 - a), whatever the mean; asked for none, more by how far m_c is."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(300) % 2
    x0 = MEANS[labels].view(-1, 1, 1, 1) + STD * torch.randn(300, 1, 8, 8, generator=generator).double()
    pipe = SpikingDiffusionPipeline(GaussianClasses(), make_scheduler("ddim", num_train_timesteps=20, beta_end=0.4))
    pipe.unet.register_to_config(num_classes=2)
    batches = [(images, rows if asked else None) for images, rows in zip(x0.split(50), labels.split(50), strict=True)]
    found = measure_moments(pipe, batches, count=300, progress=False)
    variance = A * STD**2 + 1 - A
    distance = 0 if asked else ((MEANS[:2] - MEANS[2]) ** 2).mean()
    z = (torch.tensor(found.h) - (1 - A) * (variance + A * distance) / variance**2) / torch.tensor(found.standard_error)
    assert z.abs().max() < 4
    assert max(found.standard_error) < 0.05


def test_batches_and_seeds():
    pipe = linear()
    whole = measure_moments(pipe, unlabelled(30), count=30, progress=False)
    parts = measure_moments(pipe, unlabelled(30, 10), count=30, progress=False)
    assert parts.h == pytest.approx(whole.h, rel=1e-12)
    other = measure_moments(pipe, unlabelled(30), count=30, seed=1, progress=False)
    assert other.h != whole.h


def test_a_spiking_model_samples_with_what_was_measured_on_it(spiking, tmp_path):
    spiking.save_pretrained(tmp_path / "run" / "model")
    with pytest.raises(UserError, match="run `sddpm moments MODEL`"):
        spiking(seeds=[0], solver="analytic-dpm", num_inference_steps=3, progress=False)
    weights = {name: tensor.clone() for name, tensor in spiking.unet.state_dict().items()}
    found = measure_moments(spiking, unlabelled(4), count=4, progress=False)
    assert all(torch.equal(weights[name], tensor) for name, tensor in spiking.unet.state_dict().items())
    assert read_moments(tmp_path / "run") is None
    keep_moments(tmp_path / "run", found)
    assert read_moments(tmp_path / "run") == found.to_dict()
    for loaded in (
        load_pipeline(tmp_path / "run"),
        SpikingDiffusionPipeline.from_pretrained(tmp_path / "run" / "model"),
    ):
        pictures = [
            loaded(seeds=[0, 1], solver=solver, num_inference_steps=3, output_type="pt", progress=False).images
            for solver in ("analytic-dpm", "analytic-ddim", "analytic-dpm-ot")
        ]
        assert not torch.equal(pictures[0], pictures[1])
        loaded.save_pretrained(tmp_path / "again")
        assert read_moments(tmp_path / "again") == found.to_dict()


def test_thresholds_that_guidance_keeps_are_in_force(spiking):
    plain = measure_moments(spiking, unlabelled(4), count=4, progress=False)
    guided = SpikingDiffusionPipeline(spiking.unet, spiking.scheduler, {"v_threshold": 0.7})
    assert measure_moments(guided, unlabelled(4), count=4, progress=False).h != plain.h


def test_refusals(spiking, tmp_path):
    with pytest.raises(UserError, match="at least 3 images, not 2"):
        measure_moments(spiking, unlabelled(2), count=2, progress=False)
    with pytest.raises(UserError, match="1 x 8 x 8, these are 3 x 8 x 8"):
        measure_moments(spiking, [(coins(4).expand(-1, 3, -1, -1), None)], count=4, progress=False)
    broken = linear()
    broken.unet.slope = lambda t: float("nan")
    with pytest.raises(UserError, match="NaN"):
        measure_moments(broken, unlabelled(4), count=4, progress=False)
    with pytest.raises(UserError, match="is not a model"):
        keep_moments(tmp_path, Moments([1.0], [0.0], 3))


def test_a_failed_write_leaves_the_config_as_it_was(spiking, tmp_path, monkeypatch):
    spiking.save_pretrained(tmp_path)
    file = tmp_path / "scheduler" / "scheduler_config.json"
    before = file.read_text()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(UserError, match="No space left"):
        keep_moments(tmp_path, Moments([1.0], [0.0], 3))
    monkeypatch.undo()
    assert file.read_text() == before
    assert json.loads(before)["_class_name"] == "RespacedDDIMScheduler"
