"""FSDDIM: its neuron, currents that pass undecoded from one diffusion step to the next, and what keeps them alike."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from sddpm.diffusion.noise import generators_for
from sddpm.diffusion.objectives import ddim_weight
from sddpm.diffusion.schedule import NoiseSchedule
from sddpm.diffusion.solvers import make_scheduler
from sddpm.errors import UserError
from sddpm.models import SpikingUNet2DModel
from sddpm.models.early_exit import EarlyExit
from sddpm.neurons import Dynamics, multi_step
from sddpm.pipelines import SpikingDiffusionPipeline, load_pipeline
from sddpm.pipelines.denoise import denoise
from sddpm.training import load_config, train
from sddpm.training.batches import Batch
from sddpm.training.config import STRICTLY_ABOVE_1, FsddimConfig
from sddpm.training.objective import current_spread, make_loss
from sddpm.training.state import build_model, make_pipeline

SMALL = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "base_channels": 8, "channel_mult": (1, 2)}
NEURON = {"neuron": "lif", "tau": 5.0, "decay_input": False, "detach_reset": True, "surrogate": "triangle"}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    unet = SpikingUNet2DModel(
        **SMALL, num_res_blocks=1, T=3, pure=True, synaptic_currents=True, num_train_timesteps=20, **NEURON
    ).double()
    torch.nn.init.xavier_uniform_(unet.readout.conv.weight)
    for _ in range(20):
        unet(torch.randn(8, 1, 8, 8, dtype=torch.float64), torch.randint(20, (8,)))
    return unet.eval()


def scheduler(prediction_type="v_prediction", steps=20, solver="ddim"):
    return make_scheduler(
        solver,
        num_train_timesteps=steps,
        beta_schedule="cosine",
        prediction_type=prediction_type,
        clip_sample=False,
    )


def test_its_neuron_is_that_of_the_paper():
    """u <- 0.8 u (1 - o) + x, o = [u > 1], the reset detached; surrogate max(0, 1 - 2 |u - 1|); in numpy."""
    rng = np.random.default_rng(0)
    x = rng.normal(0.5, 0.7, (4, 500))
    config = FsddimConfig()
    dynamics = Dynamics(
        **{key: getattr(config, key) for key in (*NEURON, "v_reset", "surrogate_alpha")},
    )
    currents = torch.tensor(x, requires_grad=True)
    spikes = multi_step(currents, dynamics, v_threshold=config.v_threshold)
    u, o, grads, expected = np.zeros(500), np.zeros(500), np.zeros((4, 500)), []
    for n in range(4):
        keep = 0.8 * (1 - o)
        u = keep * u + x[n]
        o = (u > 1).astype(float)
        grads[: n + 1] = grads[: n + 1] * keep
        grads[n] = 1
        expected.append((o, np.maximum(0, 1 - 2 * np.abs(u - 1)) * grads[: n + 1]))
    np.testing.assert_array_equal(spikes.detach().numpy(), [o for o, _ in expected])
    for n in range(4):
        (grad,) = torch.autograd.grad(spikes[n].sum(), currents, retain_graph=True)
        np.testing.assert_allclose(grad.numpy()[: n + 1], expected[n][1], rtol=1e-5, atol=1e-6)


def test_it_fires_above_the_threshold_not_at_it():
    x = torch.tensor([[1.0, math.nextafter(1.0, 2.0), float(np.nextafter(np.float32(1), np.float32(2)))]])
    assert multi_step(x, Dynamics(), v_threshold=STRICTLY_ABOVE_1).tolist() == [[0, 0, 1]]
    assert torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)).item() == STRICTLY_ABOVE_1


def test_an_image_is_the_same_current_at_every_step_and_the_answer_their_mean(model):
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        currents = model(x.expand(3, *x.shape), 7).sample
        torch.testing.assert_close(model(x, 7).sample, currents.mean(0), rtol=1e-12, atol=1e-12)
        assert currents.shape == (3, 2, 1, 8, 8) and currents.std(0).max() > 1e-3
        other = torch.stack([x, x + 0.3, x - 0.3])
        assert not torch.allclose(model(other, 7).sample.mean(0), currents.mean(0))
    with pytest.raises(UserError, match=r"must have T = 3 time steps in their first dimension, got \[2, 2, 1, 8, 8\]"):
        model(x.expand(2, *x.shape), 7)


def walk(model, x, steps):
    """DDIM on currents by hand, v prediction: (final currents, answers, weight of x_T, weights of the answers)."""
    a = [math.cos((t / 20 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(21)]
    betas = [min(1 - after / before, 0.999) for before, after in pairwise(a)]
    kept = np.cumprod([1.0] + [1 - beta for beta in betas])  # kept[t + 1] is alphas_cumprod at t
    levels = [20 * (steps - i) // steps for i in range(steps + 1)]
    x = x.expand(3, *x.shape)
    start, answers, weights = 1.0, [], []
    for k, j in pairwise(levels):
        angle = math.acos(math.sqrt(kept[k])) - math.acos(math.sqrt(kept[j]))
        with torch.no_grad():
            v = model(x, k - 1).sample
        x = math.cos(angle) * x - math.sin(angle) * v
        start, weights = math.cos(angle) * start, [math.cos(angle) * w for w in weights] + [-math.sin(angle)]
        answers.append(v)
    return x, answers, start, weights


def test_currents_pass_from_step_to_step_undecoded(model):
    """The loop against the rotation x cos - v sin on the currents of every time step, and not on their mean."""
    x_T = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    final, answers, _, _ = walk(model, x_T, steps=5)
    steps = list(denoise(model, scheduler(), x_T, generators_for([0, 1]), num_inference_steps=5))
    torch.testing.assert_close(steps[-1].x_prev, final.mean(0), rtol=1e-6, atol=1e-6)
    assert all(step.x_t.shape == x_T.shape for step in steps)
    torch.testing.assert_close(steps[1].x_t, steps[0].x_prev)
    assert answers[0].std(0).max() > 1e-3  # the time steps differ, so that decoding between would matter
    x = x_T
    for t in (19, 15, 11, 7, 3):
        with torch.no_grad():
            x = scheduler_step(model, x, t)
    assert (x - final.mean(0)).abs().max() > 1e-4


def scheduler_step(model, x, t):
    """One DDIM stride of 4 on the image: what a pipeline that decodes would do."""
    kept = NoiseSchedule(20, "cosine").alphas_cumprod
    before = kept[t - 4] if t > 4 else torch.tensor(1.0, dtype=torch.float64)
    angle = kept[t].sqrt().arccos() - before.sqrt().arccos()
    return angle.cos() * x - angle.sin() * model(x, t).sample


def test_the_image_is_a_weighted_sum_of_synaptic_currents(model):
    """x_0 = c x_T + sum over steps of w_k v_k with weights that are known before anything is sampled."""
    x_T = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    _, answers, start, weights = walk(model, x_T, steps=4)
    *_, last = denoise(model, scheduler(), x_T, generators_for([0]), num_inference_steps=4)
    unrolled = start * x_T + sum(w * v.mean(0) for w, v in zip(weights, answers, strict=True))
    torch.testing.assert_close(last.x_prev, unrolled, rtol=1e-6, atol=1e-6)
    assert start == pytest.approx(math.cos(math.pi / 8) ** 4, abs=0.01)  # the schedule is a quarter turn in equal steps


@pytest.mark.parametrize("solver", ["dpm++", "unipc", "pndm"])
def test_other_solvers_without_noise_work_too(model, solver):
    *_, last = denoise(
        model, scheduler(solver=solver), torch.randn(1, 1, 8, 8), generators_for([0]), num_inference_steps=5
    )
    assert last.x_prev.shape == (1, 1, 8, 8) and last.x_prev.isfinite().all()


@pytest.mark.parametrize(("solver", "eta"), [("ddpm", 0.0), ("ddim", 0.5)])
def test_solvers_with_noise_are_refused(model, solver, eta):
    with pytest.raises(UserError, match="synaptic currents need a solver that adds no noise"):
        denoise(model, scheduler(solver=solver), torch.randn(1, 1, 8, 8), generators_for([0]), eta=eta)


def test_weights_are_sines_of_the_angle_for_v_and_the_schedulers_for_both():
    kept = NoiseSchedule(20, "cosine").alphas_cumprod
    angles = torch.cat([torch.zeros(1), kept.sqrt().arccos()])
    sines = (angles[1:] - angles[:-1]).sin()
    torch.testing.assert_close(ddim_weight("v_prediction", kept), sines / sines.max(), rtol=1e-7, atol=1e-7)
    for prediction_type in ("v_prediction", "epsilon"):
        solver = scheduler(prediction_type)
        solver.set_timesteps(20)
        zero, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
        moved = [float(solver.step(one, t, zero).prev_sample.abs()) for t in solver.timesteps.tolist()][::-1]
        expected = torch.tensor(moved, dtype=torch.float64) / max(moved)
        torch.testing.assert_close(ddim_weight(prediction_type, kept), expected, rtol=1e-4, atol=1e-5)


def test_spread_is_the_variance_over_time():
    currents = torch.randn(4, 3, 1, 5, 5, dtype=torch.float64)
    expected = currents.numpy().var(axis=0).reshape(3, -1).mean(1)
    np.testing.assert_allclose(current_spread(currents).numpy(), expected, rtol=1e-12)
    assert current_spread(currents[:1].expand(4, -1, -1, -1, -1)).abs().max() < 1e-30


TINY = [
    "data.image_size=8", "model.kind=fsddim", "model.base_channels=8", "model.channel_mult=[1,2]",
    "model.num_res_blocks=1", "model.T=2", "model.patch_size=1", "diffusion.num_train_timesteps=20",
    "diffusion.beta_schedule=cosine", "diffusion.prediction_type=v_prediction", "train.batch_size=8", "train.steps=2",
    "train.sample_every=0", "train.tensorboard=false", "train.precision=float32",
]  # fmt: skip
# What the digits config says of the neuron gives way to the kind's defaults only where it is left out.
NEURON_OF_THE_PAPER = [
    "model.neuron=lif", "model.tau=5", "model.decay_input=false", "model.detach_reset=true", "model.pure=true",
    "model.surrogate=triangle", "model.surrogate_alpha=2",
]  # fmt: skip


def config():
    return load_config("digits", [*TINY, *NEURON_OF_THE_PAPER])


def test_loss_is_the_error_of_the_mean_and_the_weighted_spread():
    unet = build_model(config(), 1)
    images = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    noise, t = torch.randn(4, 1, 8, 8), torch.tensor([0, 5, 10, 19])
    loss = make_loss(config(), torch.device("cpu"))(unet, Batch(images=images, noise=noise, t=t))
    kept = NoiseSchedule(20, "cosine").alphas_cumprod
    a = kept[t].float().view(-1, 1, 1, 1)
    x0 = images / 127.5 - 1
    x_t = a.sqrt() * x0 + (1 - a).sqrt() * noise
    with torch.no_grad():
        currents = unet(x_t.expand(2, *x_t.shape), t).sample
    error = (currents.mean(0) - (a.sqrt() * noise - (1 - a).sqrt() * x0)).square().mean()
    spread = (ddim_weight("v_prediction", kept)[t] * currents.var(0, unbiased=False).flatten(1).mean(1)).mean()
    assert loss.error.item() == pytest.approx(error.item(), rel=1e-5)
    assert loss.total.item() == pytest.approx((error + spread).item(), rel=1e-5)


def test_config_of_the_paper():
    """Section 6 of its neuron's facts: decay 0.8, threshold 1 (strictly), hard detached reset, cosine, v."""
    paper = load_config("fashion_mnist_small_fsddim")
    model = paper.model
    assert isinstance(model, FsddimConfig)
    assert (1 - 1 / model.tau, model.v_threshold, model.v_reset) == (0.8, STRICTLY_ABOVE_1, 0.0)
    assert model.detach_reset and not model.decay_input and model.surrogate == "triangle"
    assert (paper.diffusion.beta_schedule, paper.diffusion.prediction_type) == ("cosine", "v_prediction")


@pytest.mark.parametrize("options", [{"pure": False}, {"num_classes": 3}, {"dims": 1}])
def test_what_currents_are_not_for(options):
    with pytest.raises(UserError, match="synaptic_currents needs pure = true, num_classes = None and dims = 2"):
        SpikingUNet2DModel(**{**SMALL, "pure": True, "synaptic_currents": True, **options})


def test_compiled_forms_and_early_exit_are_refused(model):
    pipeline = SpikingDiffusionPipeline(model, scheduler())
    with pytest.raises(UserError, match="cannot be compiled: it denoises synaptic currents"):
        pipeline(seeds=[0], num_inference_steps=5, engine="exact", progress=False)
    with pytest.raises(UserError, match="early exit over SNN time steps needs a network without synaptic currents"):
        EarlyExit(model, 0.1)


def test_every_verb_takes_it(sddpm, tmp_path, caplog):
    train(config(), tmp_path / "run", progress=False)
    pipeline = load_pipeline(tmp_path / "run")
    assert pipeline.scheduler.config["clip_sample"] is False
    assert pipeline.unet.config["synaptic_currents"]

    assert sddpm("sample", "run", "--count", 2, "--steps", 5, "--out", "x.png")[0] == 0
    assert "it denoises synaptic currents" in caplog.text  # why it is not compiled
    code, _, err = sddpm("sample", "run", "--count", 2, "--steps", 5, "--solver", "ddpm", "--out", "y.png")
    assert (code, err.splitlines()[-1].partition(":")[0]) == (2, "error")
    code, _, err = sddpm("energy", "run", "--count", 1, "--steps", 2)
    assert code == 0, err


def test_trained_weights_are_saved_and_read_back_to_the_bit(tmp_path):
    pipeline = make_pipeline(build_model(config(), 1).eval(), config().diffusion)
    pipeline.save_pretrained(tmp_path / "model")
    again = load_pipeline(tmp_path / "model")
    call = {"seeds": [3, 4], "num_inference_steps": 4, "output_type": "pt", "progress": False}
    assert torch.equal(pipeline(**call).images, again(**call).images)
