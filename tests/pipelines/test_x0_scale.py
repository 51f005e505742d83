"""x0_scale: what a model predicts too faintly is made up for, on Gaussian data, whose right answer is known."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from sddpm.diffusion.objectives import predict_x0, target
from sddpm.diffusion.schedule import NoiseSchedule
from sddpm.diffusion.solvers import make_scheduler
from sddpm.errors import UserError
from sddpm.pipelines import SpikingDiffusionPipeline, load_pipeline

A = NoiseSchedule().alphas_cumprod  # float64; the table of diffusers is float32, whence the tolerances
DEVIATION = 0.2
OPTIONS = {"num_inference_steps": 50, "output_type": "pt", "progress": False}


class FaintModel(ModelMixin, ConfigMixin):
    """The exact answer for pixels N(0, DEVIATION^2), but for the clean image, of which it sees a share alone."""

    @register_to_config
    def __init__(self, share: float = 1.0, prediction_type: str = "epsilon", sample_size=16, in_channels=1):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x, t):
        a = A[t].to(x.dtype)
        x0 = self.config.share * a.sqrt() * DEVIATION**2 / (a * DEVIATION**2 + 1 - a) * x
        noise = (x - a.sqrt() * x0) / (1 - a).sqrt()
        return SimpleNamespace(sample=target(self.config.prediction_type, A, x0, noise, t))


def pipeline(solver="ddim", prediction_type="epsilon", share=1.0):
    scheduler = make_scheduler(solver, prediction_type=prediction_type, clip_sample=False)
    return SpikingDiffusionPipeline(FaintModel(share, prediction_type), scheduler).to(torch.float64)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("solver", ["ddim", "ddpm", "dpm++", "sde-dpm++", "unipc", "pndm"])
def test_a_faint_model_samples_as_the_exact_one_at_the_inverse_of_its_share(solver, prediction_type):
    exact, faint = (pipeline(solver, prediction_type, share=share) for share in (1.0, 0.9))
    expected = exact(seeds=range(8), **OPTIONS).images
    torch.testing.assert_close(faint(seeds=range(8), x0_scale=1 / 0.9, **OPTIONS).images, expected, rtol=0, atol=1e-5)
    assert (faint(seeds=range(8), **OPTIONS).images - expected).abs().max() > 0.01


def test_the_deviation_of_the_data_comes_back():
    options = {**OPTIONS, "num_inference_steps": 200}
    faint = pipeline("sde-dpm++", share=0.97)
    deviations = {
        scale: (faint(seeds=range(64), x0_scale=scale, **options).images.std() * 2).item() for scale in (1, 1 / 0.97)
    }
    assert deviations[1] < 0.92 * DEVIATION  # every step loses a little
    assert deviations[1 / 0.97] == pytest.approx(DEVIATION, rel=0.03)  # of chance 0.6 %, the rest by 200 strides


def test_inpainting_scales_too():
    known = torch.full((2, 1, 16, 16), 0.5)
    mask = torch.arange(16).expand(16, 16) < 8
    options = {**OPTIONS, "num_inference_steps": 5, "resamplings": 2}
    exact, faint = (pipeline(share=share).inpaint(known, mask, x0_scale=1 / share, **options) for share in (1.0, 0.9))
    torch.testing.assert_close(faint.images, exact.images, rtol=0, atol=1e-5)


def test_the_callback_sees_the_scaled_image():
    steps = []
    pipeline()(seeds=[0], x0_scale=1.1, callback=steps.append, **OPTIONS)
    step = steps[10]
    answer = FaintModel()(step.x_t, step.t).sample
    torch.testing.assert_close(step.x0, 1.1 * predict_x0("epsilon", A, answer, step.x_t, step.t), rtol=0, atol=1e-5)


def test_it_is_kept_with_the_model_and_may_be_overridden(spiking, tmp_path):
    spiking.register_to_config(x0_scale=1.02)
    spiking.save_pretrained(tmp_path)
    options = {"seeds": [1], "num_inference_steps": 3, "output_type": "np", "progress": False, "engine": "eager"}
    plain = spiking(**options, x0_scale=1.0).images
    for loaded in (load_pipeline(tmp_path), SpikingDiffusionPipeline.from_pretrained(tmp_path)):
        assert loaded.x0_scale == 1.02
        assert np.array_equal(loaded(**options).images, spiking(**options, x0_scale=1.02).images)
        assert np.array_equal(loaded(**options, x0_scale=1.0).images, plain)
    assert not np.array_equal(spiking(**options).images, plain)


def test_a_damaged_one_is_refused(spiking, tmp_path):
    spiking.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"x0_scale": "much"}))
    with pytest.raises(UserError, match=r"model_index\.json: x0_scale must be a positive number"):
        load_pipeline(tmp_path)
