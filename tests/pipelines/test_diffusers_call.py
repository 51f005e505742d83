"""Calls in the manner of diffusers' pipelines."""

import numpy as np
import pytest
import torch

from sddpm.diffusion.moments import Moments
from sddpm.diffusion.noise import seeded_noise
from sddpm.diffusion.solvers import SOLVERS, make_scheduler
from sddpm.errors import UserError
from sddpm.models import SpikingUNet2DModel
from sddpm.pipelines import SpikingDiffusionPipeline
from tests.helpers.standins import PointwiseModel

QUICK = {"num_inference_steps": 4, "output_type": "pt", "progress": False}


@pytest.fixture
def pipe():
    moments = Moments([0.5] * 1000, [0.0] * 1000, 3).to_dict()  # for the analytic solvers
    return SpikingDiffusionPipeline(PointwiseModel(), make_scheduler("ddpm", moments=moments))


@pytest.fixture
def classes():
    torch.manual_seed(0)
    model = SpikingUNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, base_channels=8, channel_mult=(1, 2), num_res_blocks=1, T=2,
        num_classes=3,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return SpikingDiffusionPipeline(model, make_scheduler("ddim", beta_schedule="cosine"), class_names=["a", "b", "c"])


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_two_calls_without_seeds_give_the_same_images(pipe):
    first = pipe(2, **QUICK).images
    assert torch.equal(pipe(2, **QUICK).images, first)
    assert torch.equal(pipe(seeds=[0, 1], **QUICK).images, first)


def test_a_generator_draws_the_seeds_and_moves_on(pipe):
    together = pipe(4, generator=generator(7), **QUICK).images
    assert torch.equal(pipe(4, generator=generator(7), **QUICK).images, together)
    one = generator(7)
    parts = [pipe(2, generator=one, **QUICK).images for _ in range(2)]
    assert torch.equal(torch.cat(parts), together)
    assert len({image.numpy().tobytes() for image in together}) == 4
    drawn = generator(7)
    seeds = [int(torch.randint(2**32, (), generator=drawn)) for _ in range(4)]
    assert torch.equal(pipe(seeds=seeds, **QUICK).images, together)


def test_a_list_of_generators_is_one_for_each_image(pipe):
    images = pipe(generator=[generator(1), generator(2), generator(3)], **QUICK).images
    for i in range(3):
        assert torch.equal(pipe(generator=generator(i + 1), **QUICK).images[0], images[i])
    assert torch.equal(pipe(2, generator=[generator(1), generator(2), generator(3)], **QUICK).images, images)


@pytest.mark.parametrize(("solver", "eta"), [*((name, 0.0) for name in SOLVERS), ("ddim", 1.0)])
def test_latents_that_are_the_noise_of_the_seeds_change_nothing(pipe, solver, eta):
    seeds = [3, 11, 5]
    latents = seeded_noise(seeds, (1, 4, 4), torch.float64)
    by_seeds = pipe(seeds=seeds, solver=solver, eta=eta, **QUICK).images
    assert torch.equal(pipe(seeds=seeds, latents=latents, solver=solver, eta=eta, **QUICK).images, by_seeds)
    assert torch.equal(pipe(2, seeds=seeds, latents=latents, solver=solver, eta=eta, **QUICK).images, by_seeds)


def test_with_latents_seeds_serve_the_noise_of_steps_alone(pipe):
    latents = seeded_noise([8, 9], (1, 4, 4))
    assert torch.equal(
        pipe(latents=latents, solver="ddim", **QUICK).images, pipe(seeds=[8, 9], solver="ddim", **QUICK).images
    )
    one, other = (pipe(seeds=seeds, latents=latents, **QUICK).images for seeds in ([0, 1], [2, 3]))  # of ddpm
    assert not torch.equal(one, other)
    assert torch.equal(pipe(latents=latents, **QUICK).images, one)


def test_so_many_images_of_each_label(classes):
    images = classes(class_labels=["b", 2], num_images_per_prompt=2, **QUICK).images
    assert torch.equal(classes(seeds=range(4), class_labels=[1, 1, 2, 2], **QUICK).images, images)
    assert torch.equal(classes(4, class_labels=torch.tensor([1, 1, 2, 2]), **QUICK).images, images)
    assert torch.equal(classes(class_labels=[1, 1, 2, 2], **QUICK).images, images)
    assert torch.equal(
        classes(class_labels="b", num_images_per_prompt=2, **QUICK).images,
        classes(2, class_labels=torch.tensor(1), **QUICK).images,
    )
    assert len(classes(num_images_per_prompt=3, **QUICK).images) == 3
    assert not torch.equal(images[:2], images[2:])


def test_a_tuple_on_request(pipe):
    (images,) = pipe(2, return_dict=False, **QUICK)
    assert torch.equal(images, pipe(2, **QUICK).images)


def test_the_callback_sees_every_step_and_need_not_change_anything(pipe):
    seen, steps = [], []

    def look(called, index, timestep, tensors):
        seen.append((called, index, int(timestep), tensors["latents"].clone()))
        return tensors

    images = pipe(3, callback_on_step_end=look, **QUICK).images
    assert torch.equal(pipe(3, callback=steps.append, **QUICK).images, images)
    assert all(called is pipe for called, *_ in seen)
    assert [(index, t) for _, index, t, _ in seen] == [(0, 999), (1, 749), (2, 499), (3, 249)]
    assert all(torch.equal(latents, step.x_prev) for (*_, latents), step in zip(seen, steps, strict=True))
    nothing = pipe(3, callback_on_step_end=lambda *_: None, callback_on_step_end_tensor_inputs=[], **QUICK).images
    assert torch.equal(nothing, images)


def test_sampling_goes_on_from_the_latents_that_the_callback_returns(pipe):
    steps = []

    def grey_at_the_end(_, index, timestep, tensors):
        return (
            {"latents": torch.full_like(tensors["latents"], 0.25)}
            if index == 3
            else {"latents": tensors["latents"] + 1}
        )

    images = pipe(2, callback_on_step_end=grey_at_the_end, callback=steps.append, **QUICK).images
    assert torch.equal(images, torch.full_like(images, 0.625))
    plain = []
    pipe(2, callback=plain.append, **QUICK)
    assert torch.equal(steps[1].x_t, plain[0].x_prev + 1)


def test_the_callback_may_end_the_call(pipe):
    path = []
    pipe(4, callback=path.append, **QUICK)

    def stop(called, index, timestep, tensors):
        called._interrupt = index == 1
        return tensors

    images = pipe(4, callback_on_step_end=stop, **QUICK).images
    assert torch.equal(images, (path[1].x_prev / 2 + 0.5).clamp(0, 1))
    assert torch.equal(pipe(seeds=range(4), batch_size=2, callback_on_step_end=stop, **QUICK).images, images[:2])
    assert torch.equal(pipe(4, **QUICK).images, (path[3].x_prev / 2 + 0.5).clamp(0, 1))  # the next call is whole


def test_no_bar_where_progress_bars_are_off(pipe, capfd):
    quick = {**QUICK, "progress": True}
    pipe(**quick)
    assert "4/4" in capfd.readouterr().err
    pipe.set_progress_bar_config(disable=True)
    pipe(**quick)
    assert capfd.readouterr().err == ""


NOISE = torch.zeros(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"seeds": [1], "generator": torch.Generator()}, "give `seeds` or `generator`, not both"),
        ({"generator": 3}, "list of them, not 3; or use `seeds`"),
        ({"generator": [torch.Generator(), None]}, "or use `seeds`"),
        ({"seeds": [1, 2, 3], "latents": NOISE}, "3 seeds, but 2 latents: one for each image"),
        ({"generator": [torch.Generator()], "latents": NOISE}, "1 generators, but 2 latents"),
        ({"seeds": [1, 2, 3], "num_images_per_prompt": 2}, "3 seeds, but 2 images by `num_images_per_prompt`"),
        ({"num_images_per_prompt": 0}, "at least 1, not 0"),
        ({"latents": np.zeros((2, 1, 4, 4))}, "float tensor .B, 1, 4, 4., the noise to start from, not ndarray"),
        ({"latents": NOISE[:, :, :3]}, r"not torch.float32 \[2, 1, 3, 4\]"),
        ({"latents": NOISE.long()}, "not torch.int64"),
        ({"latents": NOISE[:0]}, r"\[0, 1, 4, 4\]"),
        ({"latents": NOISE / 0}, "NaN or infinity"),
        ({"callback_on_step_end_tensor_inputs": ["noise_pred"]}, "may name latents, not noise_pred: use `callback`"),
        ({"callback_on_step_end": lambda *_: 3}, "must return a dict, not int"),
        ({"callback_on_step_end": lambda *_: {"latents": NOISE}}, r"return latents \[1, 1, 4, 4\], not \[2, 1, 4, 4\]"),
        ({"prompt": "a cat"}, "no argument `prompt`: use `class_labels`"),
        ({"callback_steps": 2}, "use `callback`"),
        ({"seed": 2}, "use `seeds`"),
        ({"steps": 2}, "use `num_inference_steps`"),
    ],
)  # fmt: skip
def test_what_cannot_mean_anything_is_refused(pipe, asked, message):
    with pytest.raises(UserError, match=message):
        pipe(**{**QUICK, **asked})


def test_what_is_no_argument_anywhere_is_a_type_error(pipe):
    with pytest.raises(TypeError, match="nonsense"):
        pipe(nonsense=1, **QUICK)
