from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, UNet2DModel

from sddpm.diffusion.moments import Moments
from sddpm.diffusion.noise import seeded_noise
from sddpm.diffusion.solvers import SOLVERS, make_scheduler
from sddpm.errors import UserError
from sddpm.pipelines import SpikingDiffusionPipeline, denoise
from tests.helpers.standins import PointwiseModel

QUICK = {"num_inference_steps": 4, "output_type": "pt", "progress": False}


@pytest.fixture
def pipe():
    moments = Moments([0.5] * 1000, [0.0] * 1000, 3).to_dict()  # for the analytic solvers
    return SpikingDiffusionPipeline(PointwiseModel(), make_scheduler("ddpm", moments=moments))


def recorded(pipe, seeds, **options):
    """Images, and x_t of every evaluation for each seed."""
    steps = []
    images = pipe(seeds=seeds, callback=steps.append, **{**QUICK, **options}).images
    evaluations = max(step.index for step in steps) + 1
    paths = [torch.cat([step.x_t for step in steps[i::evaluations]]) for i in range(evaluations)]
    return images, torch.stack(paths, dim=1)


@pytest.mark.parametrize(("solver", "eta"), [*((name, 0.0) for name in SOLVERS), ("ddim", 1.0)])
def test_a_seed_means_the_same_at_any_batch_size_and_place(pipe, solver, eta):
    seeds = [11, 3, 8, 0, 5, 2**32 - 1, 7, 1]
    together = recorded(pipe, seeds, batch_size=8, solver=solver, eta=eta)
    for batch_size in (1, 3):
        for a, b in zip(recorded(pipe, seeds, batch_size=batch_size, solver=solver, eta=eta), together, strict=True):
            assert torch.equal(a, b)
    backwards = recorded(pipe, seeds[::-1], batch_size=3, solver=solver, eta=eta)
    for a, b in zip(backwards, together, strict=True):
        assert torch.equal(a.flip(0), b)
    assert torch.equal(together[1][:, 0], seeded_noise(seeds, (1, 4, 4)))
    assert not torch.equal(together[0][0], together[0][1])


def test_nothing_leaks_from_one_call_into_the_next(spiking):
    first = spiking(seeds=[1, 2], solver="unipc", **QUICK).images
    spiking(seeds=[5, 6, 7], solver="unipc", **QUICK)
    next(iter(spiking.stream([9], num_inference_steps=7)))  # left early
    assert torch.equal(spiking(seeds=[1, 2], solver="unipc", **QUICK).images, first)


def test_a_scheduler_that_is_held_is_not_touched(pipe):
    before = pipe.scheduler.timesteps.clone()
    pipe(**QUICK)
    assert torch.equal(pipe.scheduler.timesteps, before)


def test_the_solver_it_holds_is_the_default(pipe):
    assert torch.equal(pipe(**QUICK).images, pipe(solver="ddpm", **QUICK).images)
    assert not torch.equal(pipe(**QUICK).images, pipe(solver="ddim", **QUICK).images)


def test_the_three_kinds_of_output_agree(pipe):
    tensor, array, pictures = (
        pipe(seeds=[3, 4], num_inference_steps=3, output_type=kind, progress=False).images
        for kind in ("pt", "np", "pil")
    )
    assert tensor.shape == (2, 1, 4, 4)
    assert tensor.min() >= 0 and tensor.max() <= 1
    assert np.array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
    assert np.array_equal(np.stack([np.asarray(p) for p in pictures]), (array[..., 0] * 255).round().astype(np.uint8))


def test_colour_pictures():
    pipe = SpikingDiffusionPipeline(PointwiseModel(in_channels=3), make_scheduler("ddim"))
    assert pipe(2, num_inference_steps=1, progress=False).images[1].mode == "RGB"


def test_pictures_of_other_channels_are_refused_before_sampling():
    pipe = SpikingDiffusionPipeline(PointwiseModel(in_channels=2), make_scheduler("ddim"))
    with pytest.raises(UserError, match=r"2 channels cannot be 'pil': choose the output_type 'np' or 'pt'"):
        pipe(1, callback=lambda step: pytest.fail("sampled"), progress=False)
    assert pipe(1, num_inference_steps=1, output_type="np", progress=False).images.shape == (1, 4, 4, 2)


@pytest.mark.parametrize(("total", "expected"), [(20, 20), (1000, 50)])
def test_a_short_schedule_has_as_many_steps_by_default(total, expected):
    pipe = SpikingDiffusionPipeline(PointwiseModel(), make_scheduler("ddim", num_train_timesteps=total))
    steps = []
    pipe(1, callback=steps.append, output_type="pt", progress=False)
    assert len(steps) == pipe.num_inference_steps == expected


def test_the_callback_sees_every_step(pipe):
    steps = []
    images = pipe(seeds=[0], solver="ddim", callback=steps.append, **QUICK).images
    assert [(step.index, step.t) for step in steps] == [(0, 999), (1, 749), (2, 499), (3, 249)]
    for before, after in pairwise(steps):
        assert torch.equal(before.x_prev, after.x_t)
    assert all(step.x0.shape == step.x_t.shape == (1, 1, 4, 4) for step in steps)
    assert torch.equal(images, (steps[-1].x_prev / 2 + 0.5).clamp(0, 1))
    torch.testing.assert_close(steps[-1].x0, steps[-1].x_prev)


def test_batch_size_alone_counts_the_images(pipe):
    assert torch.equal(pipe(3, **QUICK).images, pipe(seeds=[0, 1, 2], **QUICK).images)


def test_modes_are_restored_module_by_module(pipe):
    pipe.unet.train()
    pipe.unet.dropout.eval()
    quiet = pipe(seeds=[1], **QUICK).images
    assert pipe.unet.training and not pipe.unet.dropout.training
    pipe.unet.eval()
    assert torch.equal(pipe(seeds=[1], **QUICK).images, quiet)


def test_gradients_are_not_recorded(pipe):
    x = torch.zeros(1, 1, 4, 4)
    step = next(denoise(pipe.unet, pipe.scheduler, x, [torch.Generator()], num_inference_steps=2))
    assert not step.x_prev.requires_grad
    assert torch.is_grad_enabled()


def test_thresholds_by_step(pipe):
    pipe(seeds=[0], v_threshold=lambda index, t: {"*": 0.5} if t > 499 else None, **QUICK)
    assert pipe.unet.thresholds_seen == [{"*": 0.5}, {"*": 0.5}, 1.0, 1.0]
    assert pipe.unet.v_threshold == 1.0


def test_thresholds_reach_the_neurons(spiking):
    default = recorded(spiking, [0, 1])[1]
    assert torch.equal(recorded(spiking, [0, 1], v_threshold=1.0)[1], default)
    other = recorded(spiking, [0, 1], v_threshold=0.5)[1]
    assert not torch.equal(other, default)
    assert torch.equal(recorded(spiking, [0, 1], v_threshold={"*": 0.5})[1], other)
    assert {neuron.v_threshold for neuron in spiking.unet.neurons().values()} == {1.0}
    with pytest.raises(UserError):
        spiking(v_threshold={"no such layer": 0.5}, **QUICK)
    with pytest.raises(UserError):
        spiking(v_threshold=-1.0, **QUICK)


def test_an_ann_samples_too_but_has_no_thresholds():
    blocks = {"block_out_channels": (32,), "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    unet = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, **blocks)
    pipe = SpikingDiffusionPipeline(unet, make_scheduler("ddim"))
    assert pipe(seeds=[0], **QUICK).images.shape == (1, 1, 8, 8)
    with pytest.raises(UserError, match="UNet2DModel has no spiking neurons"):
        pipe(seeds=[0], v_threshold=0.9, **QUICK)


def test_precision_follows_the_model(pipe):
    single = pipe(seeds=[0], solver="ddim", **QUICK).images
    double = pipe.to(torch.float64)(seeds=[0], solver="ddim", **QUICK).images
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=0, atol=1e-5)
    half = pipe.to(torch.bfloat16)(seeds=[0], solver="ddim", **QUICK).images
    torch.testing.assert_close(half, single, rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_inference_steps": 0}, "1 to 1000"),
        ({"num_inference_steps": -3}, "1 to 1000"),
        ({"num_inference_steps": 1001}, "1 to 1000"),
        ({"num_inference_steps": 2.5}, "whole number"),
        ({"solver": "euler"}, "ddpm, ddim"),
        ({"solver": "ddim", "eta": 1.5}, "eta must be from 0"),
        ({"solver": "ddim", "eta": -0.1}, "eta must be from 0"),
        ({"solver": "dpm++", "eta": 0.5}, "eta needs the solver ddim"),
        ({"seeds": [-1]}, "seed -1"),
        ({"seeds": []}, "nothing to sample"),
        ({"batch_size": 0}, "nothing to sample"),
        ({"output_type": "jpeg"}, "pil, np, pt"),
        ({"x0_scale": 0.0}, "x0_scale must be a positive number such as 1.01, not 0.0"),
        ({"x0_scale": float("nan")}, "x0_scale must be a positive number"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(pipe, options, message):
    with pytest.raises(UserError, match=message) as caught:
        pipe(**{**QUICK, **options})
    assert "\n" not in str(caught.value)


def test_a_scheduler_of_another_kind_is_refused():
    pipe = SpikingDiffusionPipeline(PointwiseModel(), EulerDiscreteScheduler())
    with pytest.raises(UserError, match="EulerDiscreteScheduler"):
        pipe(**QUICK)
    assert pipe(solver="ddim", **QUICK).images.shape == (1, 1, 4, 4)


def test_a_model_that_answers_nan_makes_no_picture(pipe):
    torch.nn.init.constant_(pipe.unet.scale, float("nan"))
    with pytest.raises(UserError, match="NaN"):
        pipe(solver="pndm", **QUICK)


def test_progress_bar(pipe, capfd):
    pipe(5, num_inference_steps=4, output_type="pt")
    assert "4/4" in capfd.readouterr().err
    pipe(5, **QUICK)
    assert capfd.readouterr().err == ""


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("solver", "eta"), [*((name, 0.0) for name in SOLVERS), ("ddim", 1.0)])
def test_a_seed_means_the_same_noise_on_a_gpu(pipe, solver, eta):
    seeds = [3, 8, 2]
    there = recorded(pipe.to("cuda"), seeds, solver=solver, eta=eta, batch_size=2)
    here = recorded(pipe.to("cpu"), seeds, solver=solver, eta=eta)
    assert torch.equal(there[1][:, 0].cpu(), here[1][:, 0])
    torch.testing.assert_close(there[0], here[0], rtol=0, atol=1e-3)


# Early exit over SNN time steps


def test_early_exit_reports_its_steps(spiking):
    taken = []
    options = {"num_inference_steps": 3, "output_type": "pt", "progress": False}
    spiking(seeds=range(4), exit_tolerance=1e6, callback=lambda step: taken.append(step.snn_steps), **options)
    assert [steps.tolist() for steps in taken] == [[2] * 4] * 3  # T = 2: the first exit is the end
    spiking(seeds=range(4), callback=lambda step: taken.append(step.snn_steps), **options)
    assert taken[3:] == [None] * 3


def test_an_exit_that_never_comes_changes_nothing(spiking):
    spiking.unet.double()
    options = {"seeds": range(3), "num_inference_steps": 5, "output_type": "pt", "progress": False, "engine": "eager"}
    late = spiking(exit_tolerance=0.0, **options).images
    assert torch.allclose(late, spiking(**options).images, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exit_tolerance": -1.0}, "tolerance must be a number of at least 0"),
        ({"exit_tolerance": 0.1, "engine": "exact"}, "early exit needs engine"),
    ],
)
def test_early_exits_that_cannot_be(spiking, options, message):
    with pytest.raises(UserError, match=message):
        spiking.stream([0], **options)


def test_early_exit_of_a_model_without_spikes():
    pipeline = SpikingDiffusionPipeline(PointwiseModel(), make_scheduler("ddim"))
    with pytest.raises(UserError, match="needs a spiking U-Net, not a PointwiseModel"):
        pipeline.stream([0], exit_tolerance=0.1)
