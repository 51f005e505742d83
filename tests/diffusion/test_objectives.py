import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from sddpm.diffusion.objectives import min_snr_weight, predict_epsilon, predict_x0, scale_x0, target
from sddpm.diffusion.schedule import NoiseSchedule, add_noise
from sddpm.errors import UserError

TABLE = NoiseSchedule().alphas_cumprod
T = torch.tensor([0, 10, 500, 999])


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 4, 1, 3, 3, generator=generator, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_target_gives_back_image_and_noise(images, prediction_type):
    x0, noise = images
    x_t = add_noise(TABLE, x0, noise, T)
    answer = target(prediction_type, TABLE, x0, noise, T)
    torch.testing.assert_close(predict_x0(prediction_type, TABLE, answer, x_t, T), x0, rtol=0, atol=1e-12)
    torch.testing.assert_close(predict_epsilon(prediction_type, TABLE, answer, x_t, T), noise, rtol=0, atol=1e-12)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_scaled_answer_is_that_for_the_scaled_image_at_the_same_x_t(images, prediction_type):
    x0, noise = images
    x_t = add_noise(TABLE, x0, noise, T)
    answer = target(prediction_type, TABLE, x0, noise, T)
    scaled = scale_x0(prediction_type, TABLE, answer, x_t, T, 1.02)
    torch.testing.assert_close(predict_x0(prediction_type, TABLE, scaled, x_t, T), 1.02 * x0, rtol=0, atol=1e-12)
    epsilon = predict_epsilon(prediction_type, TABLE, scaled, x_t, T)
    torch.testing.assert_close(add_noise(TABLE, 1.02 * x0, epsilon, T), x_t, rtol=0, atol=1e-12)
    assert scale_x0(prediction_type, TABLE, answer, x_t, T, 1) is answer


def test_v_is_the_velocity_of_diffusers(images):
    x0, noise = images
    velocity = DDPMScheduler().get_velocity(x0, noise, T)
    torch.testing.assert_close(target("v_prediction", TABLE, x0, noise, T), velocity, rtol=0, atol=1e-5)


def test_min_snr_caps_the_weight_of_the_x0_error(images):
    """Hang et al.: with either parameterisation the loss is min(SNR, gamma) |x_0 - estimate|^2."""
    x0, noise = images
    x_t = add_noise(TABLE, x0, noise, T)
    snr = TABLE[T] / (1 - TABLE[T])
    for prediction_type in ("epsilon", "v_prediction"):
        answer = target(prediction_type, TABLE, x0, noise, T) + 0.1
        error = (answer - target(prediction_type, TABLE, x0, noise, T)).square().mean((1, 2, 3))
        x0_error = (predict_x0(prediction_type, TABLE, answer, x_t, T) - x0).square().mean((1, 2, 3))
        weighted = min_snr_weight(prediction_type, TABLE, T, gamma=5.0) * error
        torch.testing.assert_close(weighted, snr.clamp(max=5.0) * x0_error, rtol=1e-8, atol=0)


def test_min_snr_is_that_of_the_diffusers_training_scripts():
    snr = compute_snr(DDPMScheduler(), T).double()
    torch.testing.assert_close(min_snr_weight("epsilon", TABLE, T), snr.clamp(max=5) / snr, rtol=1e-3, atol=0)
    torch.testing.assert_close(
        min_snr_weight("v_prediction", TABLE, T), snr.clamp(max=5) / (snr + 1), rtol=1e-3, atol=0
    )


def test_unknown_types_and_gammas_are_refused(images):
    x0, noise = images
    for call in (
        lambda: target("sample", TABLE, x0, noise, T),
        lambda: predict_x0("sample", TABLE, x0, noise, T),
        lambda: predict_epsilon("sample", TABLE, x0, noise, T),
        lambda: min_snr_weight("sample", TABLE, T),
        lambda: min_snr_weight("epsilon", TABLE, T, gamma=0.0),
    ):
        with pytest.raises(UserError):
            call()
