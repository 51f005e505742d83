"""The loss of a batch: squared error of the prediction at x_t, weighted by min-SNR if set, plus an optional penalty on
spikes."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from sddpm.data import to_model
from sddpm.diffusion.objectives import ddim_weight, min_snr_weight, target
from sddpm.diffusion.schedule import add_noise
from sddpm.training.batches import Batch
from sddpm.training.config import Config
from sddpm.training.firing_rates import rate_targets, record_rates
from sddpm.training.noise import noise_schedule
from sddpm.training.student import Teacher as Teacher
from sddpm.training.student import student_targets


class Loss(NamedTuple):
    """total: the minimised loss, []; error: of the prediction only, [] without gradient; firing_rate: of all neurons,
    [] without gradient, 0 if there is no penalty."""

    total: Tensor
    error: Tensor
    firing_rate: Tensor


def current_spread(currents: Tensor) -> Tensor:
    """Mean squared distance of currents [T, B, ...] from their mean over T, [B].

    The reconstruction loss of synaptic current learning (FSDDIM, arXiv 2312.01742). In training the network receives
    the same current at every time step; in sampling it receives its own currents, which must therefore not differ much.
    """
    return (currents - currents.mean(0)).square().transpose(0, 1).flatten(1).mean(1)


def make_loss(
    config: Config, device: torch.device, teacher: Teacher | None = None
) -> Callable[[nn.Module, Batch], Loss]:
    """A function (model, batch) -> `Loss`, means over the batch on `device`.

    With a `teacher`, a share `train.teacher_weight` of the loss is the squared distance to its prediction. With a
    section `distill` too, the whole loss and the error are the distance to where the teacher's steps lead.

    The tables stay on the CPU, where t is drawn: exact in float64 (which mps lacks), and without waiting for a GPU.
    """
    prediction_type, gamma = config.diffusion.prediction_type, config.diffusion.min_snr_gamma
    alphas_cumprod = noise_schedule(config.diffusion).alphas_cumprod
    dtype = torch.float64 if config.train.precision == "float64" else torch.float32
    penalty, rate_target = config.train.rate_penalty, config.train.rate_target
    T = config.model.T if config.model.synaptic_currents else 0  # time steps of the currents to denoise; 0: images
    current_weights = ddim_weight(prediction_type, alphas_cumprod)
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    share = 0.0 if teacher is None else config.train.teacher_weight
    of_student = None
    if config.distill is not None and teacher is not None:
        of_student = student_targets(config.diffusion, config.distill, teacher, config.model.num_classes)

    def weighted(difference: Tensor, t: Tensor) -> Tensor:
        """The mean square of an error [B, ...] of the prediction, weighted by noise level if set."""
        per_image = difference.square().flatten(1).mean(1)
        if gamma is not None:
            weight = min_snr_weight(prediction_type, alphas_cumprod, t, gamma)
            per_image = per_image * weight.to(dtype).to(device, non_blocking=True)
        return per_image.mean()

    def loss(model: nn.Module, batch: Batch) -> Loss:
        images = batch.images.to(device, non_blocking=True)
        x0 = to_model(images, dtype)
        if x0.ndim == 4:
            x0 = x0.contiguous(memory_format=layout)
        noise = batch.noise.to(device, non_blocking=True).to(dtype)
        x_t = add_noise(alphas_cumprod, x0, noise, batch.t)
        network = extract_model_from_parallel(model)
        currents = None
        with record_rates(network) if penalty else nullcontext() as rates:
            labels = {} if batch.labels is None else {"class_labels": batch.labels.to(device, non_blocking=True)}
            noisy = x_t.expand(T, *x_t.shape) if T else x_t
            t = batch.t.to(device, non_blocking=True)
            (prediction,) = model(noisy, t, return_dict=False, **labels)
        if T:
            currents, prediction = prediction, prediction.mean(0)
        if of_student is None:
            wanted = target(prediction_type, alphas_cumprod, x0, noise, batch.t)
        else:
            wanted = of_student(x_t, batch.t, labels)
        error = total = weighted(prediction - wanted, batch.t)
        if teacher is not None and of_student is None:
            distance = weighted(prediction - teacher(x_t, t, labels).to(prediction.dtype), batch.t)
            total = share * distance + (1.0 - share) * error
        if currents is not None:
            weight = current_weights[batch.t].to(dtype).to(device, non_blocking=True)
            total = total + (weight * current_spread(currents)).mean()
        if rates is None:
            return Loss(total, error.detach(), total.new_zeros(()))
        price = penalty * rates.penalty(rate_targets(network, rate_target))
        return Loss(total + price, error.detach(), rates.overall())

    return loss
