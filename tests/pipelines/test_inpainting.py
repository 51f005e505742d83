"""Inpainting: what is known stays, and what is painted follows the conditional distribution of Gaussian pixels."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from sddpm.diffusion.noise import generators_for
from sddpm.diffusion.repaint import resampling_walk
from sddpm.diffusion.schedule import NoiseSchedule
from sddpm.diffusion.solvers import make_scheduler
from sddpm.diffusion.timesteps import respaced_timesteps
from sddpm.errors import UserError
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.pipelines.inpainting import as_images, as_mask, inpaint
from tests.helpers.standins import PointwiseModel

A = NoiseSchedule().alphas_cumprod
MEAN = torch.tensor([0.2, -0.3], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.25, 0.18], [0.18, 0.2]], dtype=torch.float64)
QUICK = {"num_inference_steps": 3, "resamplings": 2, "jump_length": 2, "output_type": "pt", "progress": False}


class TwoPixels(torch.nn.Module):
    """The exact noise for data of two correlated Gaussian channels; each place of a picture is a sample of its own."""

    def forward(self, x, t):
        alpha, sigma = A[t] ** 0.5, (1 - A[t]) ** 0.5
        matrix = sigma * torch.linalg.inv(A[t] * COVARIANCE + sigma**2 * torch.eye(2, dtype=torch.float64))
        centred = x - (alpha * MEAN)[:, None, None]
        return SimpleNamespace(sample=torch.einsum("ij,bjhw->bihw", matrix, centred))


def paint(side, steps, resamplings, solver="ddpm", jump_length=10, known=0.9):
    """Second channels of side^2 samples whose first channel is `known`."""
    x_T = torch.randn(1, 2, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    image = torch.full_like(x_T, known)
    unknown = torch.tensor([False, True])[:, None, None]
    moments = {"h": [0.5] * 1000, "standard_error": [0.0] * 1000, "samples": 3}
    scheduler = make_scheduler(solver, clip_sample=False, moments=moments)
    options = {"num_inference_steps": steps, "jump_length": jump_length, "resamplings": resamplings}
    *_, last = inpaint(TwoPixels(), scheduler, x_T, image, unknown, generators_for([0]), **options)
    assert torch.equal(last.x_prev[:, 0], image[:, 0])
    return last.x_prev[0, 1]


def conditional(known=0.9):
    """Mean and deviation of the second channel given the first."""
    slope = COVARIANCE[0, 1] / COVARIANCE[0, 0]
    mean = MEAN[1] + slope * (known - MEAN[0])
    return mean.item(), (COVARIANCE[1, 1] - slope * COVARIANCE[0, 1]).item() ** 0.5


def propagate(steps, resamplings, jump_length=10, known=0.9):
    """What RePaint with DDPM draws here, exactly: every move is affine in x, or puts in an independent first channel.

    Returns mean and deviation of the second channel.
    """
    ts = respaced_timesteps(steps, 1000)
    bars = [A[t].item() for t in ts] + [1.0]
    data_mean, data_covariance = MEAN.numpy(), COVARIANCE.numpy()
    mean, covariance = np.zeros(2), np.eye(2)

    def put_in(bar):
        mean[0], covariance[0], covariance[:, 0] = bar**0.5 * known, 0, 0
        covariance[0, 0] = 1 - bar

    put_in(bars[0])
    for level, following in pairwise(resampling_walk(steps, jump_length, resamplings)):
        now, then = bars[level], bars[following]
        if following < level:
            ratio = then / now
            mean, covariance = ratio**0.5 * mean, ratio * covariance + (1 - ratio) * np.eye(2)
            continue
        beta = 1 - now / then
        noise_rate = (1 - now) ** 0.5
        matrix = noise_rate * np.linalg.inv(now * data_covariance + (1 - now) * np.eye(2))  # of the exact noise
        gain = (np.eye(2) - beta / noise_rate * matrix) / (1 - beta) ** 0.5
        offset = beta / noise_rate * matrix @ (now**0.5 * data_mean) / (1 - beta) ** 0.5
        mean = gain @ mean + offset
        covariance = gain @ covariance @ gain.T + (beta if then < 1 else 0) * np.eye(2)
        put_in(then)
    return mean[1], covariance[1, 1] ** 0.5


@pytest.mark.parametrize(("steps", "resamplings", "jump_length"), [(10, 1, 10), (10, 4, 3), (30, 3, 10)])
def test_painted_pixels_have_the_mean_and_deviation_of_the_exact_recursion(steps, resamplings, jump_length):
    mean, std = propagate(steps, resamplings, jump_length)
    painted = paint(120, steps, resamplings, jump_length=jump_length)
    assert painted.mean().item() == pytest.approx(mean, abs=4 * std / 120)
    assert painted.std().item() == pytest.approx(std, rel=4 / 2**0.5 / 120)


def test_resampling_leads_to_the_conditional_distribution():
    """Many short stretches come within 3 percent; without any the painted part follows the known one far too little."""
    mean, std = conditional()
    assert propagate(1000, 30) == pytest.approx((mean, std), rel=0.03)
    errors = [np.abs(np.subtract(propagate(250, times), (mean, std))) for times in (1, 3, 10)]
    assert (errors[1] < errors[0]).all() and (errors[2] < errors[1]).all()
    assert errors[0][0] > 0.5 * abs(mean)


def test_one_walk_is_the_plain_loop():
    """Against the update written out: DDPM on the respaced betas, the known channel replaced at every level."""
    steps, side = 5, 3
    generators = generators_for([0])

    def noise():
        return torch.randn(2, side, side, generator=generators[0]).double()[None]

    ts = respaced_timesteps(steps, 1000)
    bars = [A[t].item() for t in ts] + [1.0]
    x = torch.randn(1, 2, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[:, 0] = (bars[0] ** 0.5 * torch.full_like(x, 0.9) + (1 - bars[0]) ** 0.5 * noise())[:, 0]
    for t, (now, then) in zip(ts, pairwise(bars), strict=True):
        beta = 1 - now / then
        x = (x - beta / (1 - now) ** 0.5 * TwoPixels()(x, t).sample) / (1 - beta) ** 0.5
        if then < 1:
            x = x + beta**0.5 * torch.randn(2, side, side, generator=generators[0], dtype=torch.float64)[None]
            x[:, 0] = (then**0.5 * torch.full_like(x, 0.9) + (1 - then) ** 0.5 * noise())[:, 0]
    torch.testing.assert_close(paint(side, steps, 1), x[0, 1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", ["ddim", "analytic-dpm", "analytic-ddim"])
def test_other_solvers_that_can_walk_back(solver):
    assert paint(20, 10, 3, solver, jump_length=3).isfinite().all()


@pytest.fixture
def pipe():
    return SpikingDiffusionPipeline(PointwiseModel(), make_scheduler("ddim"))


@pytest.fixture
def pictures():
    return torch.randint(0, 256, (3, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


HALF = torch.tensor([[False, False, True, True]]).expand(4, 4)


def test_known_pixels_are_kept_to_the_bit(pipe, pictures):
    unit = pictures / 255
    for images in (pictures, unit, [Image.fromarray(p[0].numpy()) for p in pictures]):
        painted = pipe.inpaint(images, HALF, seeds=[4, 5, 6], **QUICK).images
        assert torch.equal(painted[..., :2], unit[..., :2])
        assert not torch.equal(painted[..., 2:], unit[..., 2:])
    assert (painted >= 0).all() and (painted <= 1).all()
    pil = pipe.inpaint(pictures, HALF, **{**QUICK, "output_type": "pil"}).images
    assert np.array_equal(np.asarray(pil[1])[:, :2], pictures[1, 0, :, :2].numpy())


def test_seeds_decide_whatever_the_batch(pipe, pictures):
    together = pipe.inpaint(pictures, HALF, seeds=[7, 1, 3], **QUICK).images
    for batch_size in (1, 2):
        assert torch.equal(
            pipe.inpaint(pictures, HALF, seeds=[7, 1, 3], batch_size=batch_size, **QUICK).images, together
        )
    several = pipe.inpaint(pictures[1:2], HALF, seeds=[0, 1], **QUICK).images
    assert torch.equal(several[1], together[1]) and not torch.equal(several[0], several[1])


def test_a_mask_an_image(pipe, pictures):
    masks = torch.zeros(3, 1, 4, 4)
    masks[0, 0, 0], masks[1, 0, 1], masks[2, 0, 2] = 1, 1, 1
    painted = pipe.inpaint(pictures, masks, **QUICK).images
    changed = (painted - pictures / 255).abs() > 1e-3
    assert not changed[masks == 0].any() and changed[masks == 1].any()
    white = Image.fromarray(masks[0, 0].numpy().astype(np.uint8) * 255)
    assert torch.equal(as_mask(white, (1, 4, 4)), masks[:1] == 1)


def test_evaluations_and_steps(pipe, pictures):
    steps = []
    pipe.inpaint(pictures, HALF, callback=steps.append, **QUICK)
    walk = resampling_walk(3, 2, 2)
    assert [step.t for step in steps] == [respaced_timesteps(3, 1000)[a] for a, b in pairwise(walk) if b > a]
    assert [step.index for step in steps] == list(range(6))


def test_what_cannot_be(pipe, pictures):
    for solver in ("dpm++", "sde-dpm++", "unipc", "pndm"):
        with pytest.raises(UserError, match="inpainting repeats steps"):
            pipe.inpaint(pictures, HALF, solver=solver, **QUICK)
    with pytest.raises(UserError, match="2 seeds, but 3 images"):
        pipe.inpaint(pictures, HALF, seeds=[1, 2], **QUICK)
    with pytest.raises(UserError, match="1 x 4 x 4, these are 1 x 4 x 3"):
        pipe.inpaint(pictures[..., :3], HALF, **QUICK)
    with pytest.raises(UserError, match="the mask is false everywhere"):
        pipe.inpaint(pictures, HALF & False, **QUICK)
    with pytest.raises(UserError, match="mask must be an image or a tensor, not None"):
        pipe.inpaint(pictures, None, **QUICK)
    with pytest.raises(UserError, match=r"whole numbers of at least 1, not 2 and 1\.5"):
        pipe.inpaint(pictures, HALF, **{**QUICK, "jump_length": 2, "resamplings": 1.5})
    with pytest.raises(UserError, match="mask must be 4 x 4"):
        pipe.inpaint(pictures, HALF[:3], **QUICK)
    with pytest.raises(UserError, match="true, or 1"):
        pipe.inpaint(pictures, HALF * 0.5, **QUICK)
    with pytest.raises(UserError, match=r"lie in \[0, 1\]"):
        pipe.inpaint(pictures.float(), HALF, **QUICK)
    with pytest.raises(UserError, match="one size"):
        as_images([Image.new("L", (4, 4)), Image.new("L", (5, 4))], (1, 4, 4))
