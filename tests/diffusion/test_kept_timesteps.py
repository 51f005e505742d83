"""Time steps that are kept with a model: sampled at where they are as many as is asked, and alone if distilled."""

import json
import logging

import pytest
import torch

from sddpm.diffusion.noise import generators_for
from sddpm.diffusion.solvers import SOLVERS, make_scheduler, solver_name, switch_solver
from sddpm.diffusion.timesteps import respaced_timesteps
from sddpm.errors import UserError
from sddpm.pipelines import SpikingDiffusionPipeline, load_pipeline
from sddpm.pipelines.denoise import denoise
from tests.diffusion.test_solvers import DATA, Oracle
from tests.helpers.tiny_models import tiny_unet

KEPT = [999, 700, 300, 40]
RESPACED = [name for name, solver in SOLVERS.items() if not solver.needs_moments]


def walked(scheduler, **options):
    x = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return list(denoise(Oracle(DATA.eps), scheduler, x, generators_for([0, 1]), **options))


@pytest.mark.parametrize("solver", [name for name in RESPACED if name != "pndm"])
def test_as_many_steps_as_are_kept_are_those(solver):
    scheduler = make_scheduler(solver, timesteps=KEPT)
    assert [step.t for step in walked(scheduler)] == KEPT  # the kept ones are the default
    assert [step.t for step in walked(scheduler, num_inference_steps=4)] == KEPT
    assert [step.t for step in walked(scheduler, num_inference_steps=5)] == respaced_timesteps(5, 1000)


def test_ddim_strides_are_those_between_the_kept_steps():
    x, a = walked(make_scheduler("ddim", timesteps=KEPT, clip_sample=False)), torch.tensor(DATA.a)
    for step, following in zip(x, [*KEPT[1:], None], strict=True):
        epsilon = DATA.eps(step.x_t, step.t)
        x0 = (step.x_t - (1 - a[step.t]).sqrt() * epsilon) / a[step.t].sqrt()
        after = torch.ones(()).double() if following is None else a[following]
        assert torch.allclose(step.x_prev, after.sqrt() * x0 + (1 - after).sqrt() * epsilon, atol=1e-4)


def test_a_distilled_scheduler_refuses_all_else():
    scheduler = make_scheduler("ddim", timesteps=KEPT, distilled=True)
    assert solver_name(scheduler) == "ddim"
    assert [step.t for step in walked(switch_solver(scheduler, "ddim"))] == KEPT
    knows = r"^this model was distilled to 4 evaluations, at t = 999, 700, 300, 40"
    for steps in (1, 3, 5, 50):
        with pytest.raises(UserError, match=f"{knows}: leave out `num_inference_steps`, or give 4, not {steps}$"):
            walked(scheduler, num_inference_steps=steps)
    with pytest.raises(UserError, match=f"{knows}, without fresh noise: leave out eta, or give 0, not 0.5$"):
        walked(scheduler, eta=0.5)
    for solver in set(SOLVERS) - {"ddim"}:
        with pytest.raises(UserError, match=rf"{knows}, with ddim: .* or give ddim, not {solver.replace('+', '.')}$"):
            switch_solver(scheduler, solver)
    with pytest.raises(UserError, match="unknown solver 'euler'"):
        switch_solver(scheduler, "euler")


@pytest.mark.parametrize("bad", [[], [3, 3], [1, 2], [1000, 1], [5, -1], [5.0], [True], "999", 4, {"a": 1}])
def test_steps_out_of_order_are_refused(bad):
    with pytest.raises(UserError, match=r"timesteps must be decreasing whole numbers, from 999 at most to 0 at least"):
        switch_solver(kept_by(timesteps=bad), "ddim")


def kept_by(**config):
    scheduler = make_scheduler("ddim")
    scheduler.register_to_config(**config)
    return scheduler


def test_distilled_needs_its_steps():
    with pytest.raises(UserError, match="a distilled model needs its timesteps"):
        make_scheduler("ddim", distilled=True)
    with pytest.raises(UserError, match="distilled must be true or false, not 'yes'"):
        switch_solver(kept_by(timesteps=KEPT, distilled="yes"), "ddim")


@pytest.mark.parametrize("solver", RESPACED)
def test_a_saved_model_keeps_them(tmp_path, solver, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    distilled = solver == "ddim"
    scheduler = make_scheduler(solver, timesteps=KEPT, distilled=distilled)
    SpikingDiffusionPipeline(tiny_unet(), scheduler, num_inference_steps=4).save_pretrained(tmp_path)
    for load in (load_pipeline, SpikingDiffusionPipeline.from_pretrained):
        found = load(tmp_path)
        config = found.scheduler.config
        assert (config.timesteps, bool(config.get("distilled")), found.num_inference_steps) == (KEPT, distilled, 4)
        assert found.solver == solver
    assert not caplog.records  # nothing of "config attributes that are not expected"


def test_models_without_kept_steps_are_saved_as_ever(tmp_path):
    SpikingDiffusionPipeline(tiny_unet(), make_scheduler("ddim")).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert not {"timesteps", "distilled"} & set(config)
    assert load_pipeline(tmp_path).num_inference_steps == 50


def test_a_damaged_file_and_a_number_that_contradicts_it_are_refused(tmp_path):
    scheduler = make_scheduler("ddim", timesteps=KEPT, distilled=True)
    SpikingDiffusionPipeline(tiny_unet(), scheduler).save_pretrained(tmp_path)
    assert load_pipeline(tmp_path).num_inference_steps == 4  # also where model_index.json does not say
    with pytest.raises(UserError, match="must be 4, for which it was distilled, not 50"):
        SpikingDiffusionPipeline(tiny_unet(), scheduler, num_inference_steps=50)
    file = tmp_path / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "timesteps": [1, 2]}))
    with pytest.raises(UserError, match=r"scheduler_config\.json: timesteps must be decreasing whole numbers"):
        load_pipeline(tmp_path)


def test_the_command_names_its_options(sddpm, tmp_path):
    scheduler = make_scheduler("ddim", timesteps=KEPT, distilled=True)
    SpikingDiffusionPipeline(tiny_unet(), scheduler).save_pretrained(tmp_path / "model")
    assert sddpm("sample", "model", "--count", 1, "--out", "a.png")[0] == 0
    code, _, err = sddpm("sample", "model", "--count", 1, "--steps", 8, "--out", "b.png")
    assert code == 2 and "leave out --num-inference-steps, or give 4, not 8" in err and err.count("\n") == 1
    code, _, err = sddpm("sample", "model", "--count", 1, "--solver", "unipc", "--out", "b.png")
    assert code == 2 and "leave out --solver, or give ddim, not unipc" in err and err.count("\n") == 1
    assert "distilled    4 evaluations, at t = 999, 700, 300, 40" in sddpm("info", "model")[1]
