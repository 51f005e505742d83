"""The noise-prediction loss of models whose error is known."""

from types import SimpleNamespace

import pytest
import torch

from sddpm.diffusion.solvers import make_scheduler
from sddpm.guidance.proxy import BINS, NoisyImages, bin_edges, noise_losses
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.pipelines.threshold_guidance import StagedThresholds
from tests.helpers.standins import PointwiseModel

IMAGES = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Answers(PointwiseModel):
    """Answers `v_threshold - 1` everywhere."""

    def forward(self, sample, timestep):
        assert timestep.shape == (len(sample),)
        return SimpleNamespace(sample=torch.full_like(sample, self.v_threshold - 1))


def pipeline(prediction_type="epsilon"):
    return SpikingDiffusionPipeline(Answers(sample_size=8), make_scheduler("ddim", prediction_type=prediction_type))


def test_each_image_is_asked_about_once_in_each_tenth():
    noisy = NoisyImages.of(IMAGES, 1000)
    assert bin_edges(1000) == [(100 * i, 100 * i + 100) for i in range(10)]
    for i, (low, high) in enumerate(bin_edges(1000)):
        t = noisy.t[:, i]
        assert low <= t.min() and t.max() < high
        assert len(t.unique()) == 60 and abs(float(t.double().mean()) - (low + high - 1) / 2) < 2
    assert not torch.equal(noisy.t[:, 0] + 100, noisy.t[:, 1])
    assert bin_edges(7)[0][0] == 0 and bin_edges(7)[-1][1] == 7


def test_a_constant_answer_errs_by_the_noise_and_its_own_square():
    """E (c - epsilon)^2 = c^2 + 1."""
    noisy = NoisyImages.of(IMAGES, 1000)
    at_one = noise_losses(pipeline(), noisy, 1.0)
    assert at_one.shape == (60, BINS) and at_one.dtype == torch.float64
    assert float(at_one.mean()) == pytest.approx(1, abs=4 * (2 / (60 * BINS * 64)) ** 0.5)
    assert float(noise_losses(pipeline(), noisy, 1.5).mean()) == pytest.approx(1.25, abs=0.05)


def test_the_noise_is_the_same_at_every_threshold():
    """(c - e)^2 - (0 - e)^2 = c^2 - 2 c e: paired differences are of the mean of e alone, the same for c and -c."""
    noisy = NoisyImages.of(IMAGES, 1000)
    base, up, down = (noise_losses(pipeline(), noisy, v) for v in (1.0, 1.5, 0.5))
    torch.testing.assert_close(up + down - 2 * base, torch.full_like(base, 0.5), atol=1e-5, rtol=0)


def test_thresholds_by_part_of_the_denoising():
    noisy = NoisyImages.of(IMAGES, 1000)
    staged = noise_losses(pipeline(), noisy, StagedThresholds(1.5, 1.0, 450))
    early, late = noise_losses(pipeline(), noisy, 1.5), noise_losses(pipeline(), noisy, 1.0)
    torch.testing.assert_close(staged, torch.where(noisy.t >= 450, early, late))


@pytest.mark.parametrize("boundary", [0, 1000])
def test_a_part_without_steps(boundary):
    noisy = NoisyImages.of(IMAGES, 1000)
    staged = noise_losses(pipeline(), noisy, StagedThresholds(1.5, 1.0, boundary))
    assert torch.equal(staged, noise_losses(pipeline(), noisy, 1.0 if boundary else 1.5))


def test_a_model_of_v_is_judged_by_the_noise_it_implies():
    """v = 0 means epsilon = sqrt(1 - a) x_t, whose error is sqrt(a) (sqrt(1 - a) x_0 - sqrt(a) epsilon)."""
    noisy = NoisyImages.of(torch.full((40, 1, 8, 8), 255, dtype=torch.uint8), 1000)
    pipe = pipeline("v_prediction")
    a = pipe.scheduler.alphas_cumprod[noisy.t].double()
    found = noise_losses(pipe, noisy, 1.0)
    expected = a * ((1 - a) + a)  # x_0 = 1: E (...)^2 = a ((1 - a) + a)
    assert float(found.mean()) == pytest.approx(float(expected.mean()), rel=0.05)
    assert float(found[:, 9].mean()) < 0.01 < 0.7 < float(found[:, 0].mean())
