"""The loss of a batch, with networks whose answers are known."""

import pytest
import torch
from torch import nn

from sddpm.training.batches import Batch
from sddpm.training.noise import noise_schedule
from sddpm.training.objective import make_loss


class Answer(nn.Module):
    """Answers with what a function makes of (x_t, t), and remembers the x_t it was asked about."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x_t, t, return_dict=True):
        assert not return_dict
        self.x_t, self.t = x_t, t
        return (self.function(x_t, t),)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return Batch(
        torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8, generator=generator),
        torch.randn(6, 3, 4, 4, generator=generator),
        torch.tensor([0, 1, 10, 500, 900, 999]),
    )


def by_hand(batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x_0 in [-1, 1], noise and cumulative product of 1 - beta, float64, from the definition."""
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[batch.t].view(-1, 1, 1, 1)
    return batch.images.double() / 127.5 - 1, batch.noise.double(), kept


def test_a_network_that_answers_zero_pays_the_targets_square(tiny, batch):
    x0, noise, kept = by_hand(batch)
    zero = Answer(lambda x, t: torch.zeros_like(x))
    for kind, target in (("epsilon", noise), ("v_prediction", kept.sqrt() * noise - (1 - kept).sqrt() * x0)):
        config = tiny("train.precision=float64", f"diffusion.prediction_type={kind}")
        loss = make_loss(config, torch.device("cpu"))(zero, batch)
        assert loss.total.item() == pytest.approx(target.square().mean().item(), rel=1e-6)  # to_model works in float32
        torch.testing.assert_close(zero.x_t, kept.sqrt() * x0 + (1 - kept).sqrt() * noise, rtol=0, atol=1e-6)
        assert torch.equal(zero.t, batch.t)


def test_a_network_that_knows_the_image_pays_nothing(tiny, batch):
    x0, _, kept = by_hand(batch)
    perfect = {
        "epsilon": lambda x, t: (x - kept.sqrt() * x0) / (1 - kept).sqrt(),
        "v_prediction": lambda x, t: (kept.sqrt() * x - x0) / (1 - kept).sqrt(),
    }
    for kind, function in perfect.items():
        config = tiny("train.precision=float64", f"diffusion.prediction_type={kind}", "diffusion.min_snr_gamma=5")
        assert make_loss(config, torch.device("cpu"))(Answer(function), batch).total.item() < 1e-8


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weights_the_error_of_x0_by_the_capped_snr(tiny, batch, kind):
    """Hang et al. (2023): the x_0 error weighted by min(SNR, gamma), whatever is predicted."""
    x0, noise, kept = by_hand(batch)
    config = tiny("train.precision=float64", f"diffusion.prediction_type={kind}", "diffusion.min_snr_gamma=2")
    loss = make_loss(config, torch.device("cpu"))(Answer(lambda x, t: torch.zeros_like(x)), batch)
    x_t = kept.sqrt() * x0 + (1 - kept).sqrt() * noise
    implied_x0 = x_t / kept.sqrt() if kind == "epsilon" else kept.sqrt() * x_t
    weight = (kept / (1 - kept)).clamp(max=2.0)
    assert loss.total.item() == pytest.approx((weight * (implied_x0 - x0).square()).mean().item(), rel=1e-4)


def test_layout_and_precision_of_what_the_network_sees(tiny, batch):
    zero = Answer(lambda x, t: torch.zeros_like(x))
    make_loss(tiny("train.channels_last=true"), torch.device("cpu"))(zero, batch)
    assert zero.x_t.is_contiguous(memory_format=torch.channels_last) and zero.x_t.dtype == torch.float32
    make_loss(tiny("train.channels_last=false"), torch.device("cpu"))(zero, batch)
    assert zero.x_t.is_contiguous()


def test_cosine_schedule_is_taken(tiny):
    schedule = noise_schedule(tiny("diffusion.beta_schedule=cosine").diffusion)
    assert schedule.alphas_cumprod[499].item() == pytest.approx(0.4938, abs=1e-3)  # cos^2 just past the middle
