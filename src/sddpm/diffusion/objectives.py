"""The quantity that the network predicts, and the weights of its error.

"epsilon": the noise (Ho et al., 2020). "v_prediction": v = sqrt(a) epsilon - sqrt(1 - a) x_0 (Salimans & Ho, 2022),
with a = alphas_cumprod_t. Since x_t = sqrt(a) x_0 + sqrt(1 - a) epsilon, either determines x_0 and epsilon.
"""

import math

import torch
from torch import Tensor

from sddpm.choices import check_choice
from sddpm.diffusion.schedule import signal_and_noise_rates
from sddpm.errors import UserError

PREDICTION_TYPES = ("epsilon", "v_prediction")


def check_prediction_type(prediction_type: str) -> None:
    """Raise UserError unless `prediction_type` is one of `PREDICTION_TYPES`."""
    check_choice("prediction_type", prediction_type, PREDICTION_TYPES)


def target(prediction_type: str, alphas_cumprod: Tensor, x0: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
    """What the network should predict at x_t = add_noise(alphas_cumprod, x0, noise, t); shape of `x0` [B, ...].

    Raises:
        UserError: unknown prediction type.
    """
    check_prediction_type(prediction_type)
    if prediction_type == "epsilon":
        return noise
    signal_rate, noise_rate = signal_and_noise_rates(alphas_cumprod, t, x0)
    return signal_rate * noise - noise_rate * x0


def predict_x0(
    prediction_type: str, alphas_cumprod: Tensor, model_output: Tensor, x_t: Tensor, t: Tensor | int
) -> Tensor:
    """The clean image implied by the network's prediction, not clamped; shape of `x_t` [B, ...].

    Raises:
        UserError: unknown prediction type.
    """
    check_prediction_type(prediction_type)
    signal_rate, noise_rate = signal_and_noise_rates(alphas_cumprod, t, x_t)
    if prediction_type == "epsilon":
        return (x_t - noise_rate * model_output) / signal_rate
    return signal_rate * x_t - noise_rate * model_output


def predict_epsilon(
    prediction_type: str, alphas_cumprod: Tensor, model_output: Tensor, x_t: Tensor, t: Tensor | int
) -> Tensor:
    """The noise implied by the network's prediction; shape of `x_t` [B, ...].

    Raises:
        UserError: unknown prediction type.
    """
    check_prediction_type(prediction_type)
    if prediction_type == "epsilon":
        return model_output
    signal_rate, noise_rate = signal_and_noise_rates(alphas_cumprod, t, x_t)
    return noise_rate * x_t + signal_rate * model_output


def scale_x0(
    prediction_type: str, alphas_cumprod: Tensor, model_output: Tensor, x_t: Tensor, t: Tensor | int, scale: float
) -> Tensor:
    """The prediction whose clean image is `scale` times that of `model_output`, not clamped; shape of `x_t` [B, ...].

    Raises:
        UserError: unknown prediction type.
    """
    if scale == 1:
        return model_output
    x0 = scale * predict_x0(prediction_type, alphas_cumprod, model_output, x_t, t)
    signal_rate, noise_rate = signal_and_noise_rates(alphas_cumprod, t, x_t)
    if prediction_type == "epsilon":
        return (x_t - signal_rate * x0) / noise_rate
    return (signal_rate * x_t - x0) / noise_rate


def check_x0_scale(scale: float) -> None:
    """Raise UserError unless `scale` is a positive number."""
    number = isinstance(scale, int | float) and not isinstance(scale, bool)
    if not (number and math.isfinite(scale) and scale > 0):
        raise UserError(f"x0_scale must be a positive number such as 1.01, not {scale!r}")


def ddim_weight(prediction_type: str, alphas_cumprod: Tensor) -> Tensor:
    """The sensitivity |d x_(t-1) / d prediction| of a DDIM step from t to t - 1, divided by its maximum over t.

    For v it is the sine of the angle between the two noise levels, arccos sqrt(a_t) - arccos sqrt(a_(t-1)).

    Args:
        prediction_type: "epsilon" or "v_prediction".
        alphas_cumprod: table [N]. The step from t = 0 leads to the clean image.

    Returns:
        [N], 0 to 1.

    Raises:
        UserError: unknown prediction type.
    """
    before = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
    t = torch.arange(len(alphas_cumprod))
    none, one = torch.zeros_like(alphas_cumprod), torch.ones_like(alphas_cumprod)
    x0 = predict_x0(prediction_type, alphas_cumprod, one, none, t)
    epsilon = predict_epsilon(prediction_type, alphas_cumprod, one, none, t)
    moved = (before.sqrt() * x0 + (1.0 - before).sqrt() * epsilon).abs()
    return moved / moved.max()


def min_snr_weight(prediction_type: str, alphas_cumprod: Tensor, t: Tensor, gamma: float = 5.0) -> Tensor:
    """Min-SNR weights of the squared error (Hang et al., 2023, eq. 8 and appendix): min(SNR, gamma) on the x_0 error.

    With SNR = a / (1 - a) this is min(SNR, gamma) / SNR on the epsilon error and min(SNR, gamma) / (SNR + 1) on the v
    error.

    Args:
        prediction_type: "epsilon" or "v_prediction".
        alphas_cumprod: table [N].
        t: LongTensor [B] on the table's device.
        gamma: the cap on the signal-to-noise ratio.

    Returns:
        Weights [B] in the table's dtype.

    Raises:
        UserError: unknown prediction type, or gamma not positive.
    """
    check_prediction_type(prediction_type)
    if not gamma > 0:
        raise UserError(f"min-SNR gamma must be positive, not {gamma}")
    snr = alphas_cumprod[t] / (1.0 - alphas_cumprod[t])
    capped = torch.clamp(snr, max=gamma)
    return capped / snr if prediction_type == "epsilon" else capped / (snr + 1.0)
