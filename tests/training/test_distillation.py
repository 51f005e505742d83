"""Distillation through `train` and `sddpm distill`: the exact student of a linear model, nodes, resuming, refusals."""

import json
import math
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sddpm.data import open_dataset
from sddpm.diffusion.noise import draw_noise, generators_for
from sddpm.diffusion.solvers import make_scheduler
from sddpm.errors import UserError
from sddpm.moving import pack_run, unpack_run
from sddpm.pipelines import SpikingDiffusionPipeline, load_pipeline
from sddpm.release import release
from sddpm.training import distill, load_config, train
from sddpm.training.averaging import average
from sddpm.training.batches import training_batches
from sddpm.training.config_files import changed_keys, to_yaml
from sddpm.training.distillation import named, stage_counts, student_config
from sddpm.training.noise import walk_timesteps
from tests.helpers.linear_model import PHI, LinearModel, exact_model, flow, walked

ROOT = Path(__file__).resolve().parents[2]
NODES = [999, 749, 499, 249]
SUBSTEPS = {999: [999, 937, 874, 812], 749: [749, 687, 624, 562], 499: [499, 437, 374, 312], 249: [249, 187, 124, 62]}
MEAN, DEVIATION = 0.1, 0.25


def ends(nodes):
    return [*(PHI[t] for t in nodes[1:]), 0.0]


@pytest.fixture
def gaussian(tmp_path, tiny, monkeypatch):
    """Makes the config of a linear student of Gaussian data and their exact teacher."""
    values = MEAN + DEVIATION * np.random.default_rng(0).standard_normal((64, 8, 8))
    (tmp_path / "data").mkdir()
    for i, image in enumerate(((values + 1) * 127.5).round().clip(0, 255).astype(np.uint8)):
        Image.fromarray(image).save(tmp_path / "data" / f"{i}.png")

    def make(*overrides, means=(MEAN,), **options):
        monkeypatch.setattr("sddpm.training.run.build_model", lambda config, channels: LinearModel(**options))
        scheduler = make_scheduler("ddim", prediction_type="v_prediction")
        teacher = SpikingDiffusionPipeline(exact_model(means, DEVIATION, **options), scheduler)
        teacher.save_pretrained(tmp_path / "teacher")
        return tiny(
            f"train.teacher={json.dumps(str(tmp_path / 'teacher'))}", "data.dataset=folder",
            f"data.path={json.dumps(str(tmp_path / 'data'))}", "train.precision=float64", "train.steps=600",
            "train.batch_size=16", "train.optimizer=adam", "train.lr=0.05", "train.lr_schedule=cosine",
            "train.max_grad_norm=0", "train.weight_decay=0", "train.ema_decay=0", "train.log_every=100",
            "train.checkpoint_every=300", "train.channels_last=false", "distill.grid=uniform", "distill.order=1",
            *overrides,
        )  # fmt: skip

    return make


def student_map(unet, t, end, label=-1):
    """(gain, shift) of one DDIM step with the student's v."""
    slope, offset = unet.slope[t].item(), unet.offset[t, label].item()
    d = PHI[t] - end
    return math.cos(d) - math.sin(d) * slope, -math.sin(d) * offset


def test_the_student_of_an_exact_teacher_is_the_closed_form(gaussian, tmp_path):
    """Its one step is the composition of the teacher's four, to the digits of convergence; nothing is learned at other
    time steps; it samples at its own by default, as these maps say."""
    train(gaussian("distill.evaluations=4"), tmp_path / "run", progress=False)
    pipeline = load_pipeline(tmp_path / "run")
    unet, config = pipeline.unet, pipeline.scheduler.config
    assert (config.timesteps, config.distilled, pipeline.config.num_inference_steps) == (NODES, True, 4)
    assert pipeline.x0_scale == 1
    gain, shift = 1.0, 0.0
    for t, end in zip(NODES, ends(NODES), strict=True):
        wanted = walked(SUBSTEPS[t], end, MEAN, DEVIATION)
        found = student_map(unet, t, end)
        assert found == pytest.approx(wanted, abs=1e-4)
        gain, shift = wanted[0] * gain, wanted[0] * shift + wanted[1]
    untouched = [t for t in range(1000) if t not in NODES]
    assert not unet.slope[untouched].any() and not unet.offset[untouched].any()
    seeds = range(16)
    x_T = draw_noise(generators_for(seeds), (1, 8, 8), torch.float32, torch.device("cpu"))
    images = pipeline(seeds=seeds, output_type="pt", progress=False).images
    assert torch.allclose(images * 2 - 1, (gain * x_T + shift).clamp(-1, 1), atol=2e-2)


def test_many_substeps_give_the_probability_flow(gaussian, tmp_path):
    """Of second order: the step from one node to the next is the exact, linear, map between their Gaussians."""
    config = gaussian("distill.evaluations=2", "distill.substeps=60", "distill.order=2", "train.steps=300")
    train(config, tmp_path / "run", progress=False)
    unet = load_pipeline(tmp_path / "run").unet
    for t, end in zip([999, 499], [PHI[499], 0.0], strict=True):
        assert student_map(unet, t, end) == pytest.approx(flow(PHI[t], end, MEAN, DEVIATION), abs=5e-3)


def test_the_scale_and_the_guidance_are_in_the_student(gaussian, tmp_path):
    """Of two classes: guidance by 2 moves the mean from none to the class twice as far, since v is linear in the mean;
    images without their class learn the plain mean."""
    means = (0.2, 0.0, 0.1)
    dataset = tmp_path / "classes"
    config = gaussian(
        "distill.evaluations=4", "distill.guidance_scale=2", "distill.x0_scale=1.05", "model.num_classes=2",
        "train.label_dropout=0.4", "train.steps=900", means=means, num_classes=2,
    )  # fmt: skip
    for i, image in enumerate(sorted((tmp_path / "data").iterdir())):
        (dataset / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, dataset / "ab"[i % 2])
    config = config.model_copy(update={"data": config.data.model_copy(update={"path": str(dataset)})})
    train(config, tmp_path / "run", progress=False)
    unet = load_pipeline(tmp_path / "run").unet
    nodes = [499, 437, 374, 312]
    for label, mean in enumerate((0.3, -0.1, 0.1)):
        wanted = walked(nodes, PHI[249], mean, DEVIATION, scale=1.05)
        assert student_map(unet, 499, PHI[249], label) == pytest.approx(wanted, abs=1e-3)


def test_a_stopped_run_resumes_to_the_same_bits(gaussian, tmp_path):
    config = gaussian("distill.evaluations=4", "train.steps=20", "train.lr_schedule=constant")
    train(config, tmp_path / "whole", progress=False)
    half = config.model_copy(update={"train": config.train.model_copy(update={"steps": 10})})
    for folder, first in (("parts", half),):
        train(first, tmp_path / folder, progress=False)
        train(config, tmp_path / folder, resume=True, progress=False)
    one, other = (load_pipeline(tmp_path / name).unet.state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_levels_are_drawn_from_the_nodes_by_seed_and_step(tiny):
    config = tiny("distill.evaluations=4", "distill.grid=angle", "train.teacher=x")
    dataset = open_dataset("digits", image_size=8)

    def drawn(config, start=0, rows=8):
        return [batch.t for batch in training_batches(dataset, config, start, torch.arange(rows))]

    all_of = drawn(config)
    assert set(torch.cat(all_of).tolist()) == {999, 430, 257, 120}
    assert all(torch.equal(a, b) for a, b in zip(all_of[3:], drawn(config, 3), strict=True))
    assert all(torch.equal(a[:4], b) for a, b in zip(all_of, drawn(config, rows=4), strict=True))


def test_configs_without_the_section_stay_as_they_were(tiny, tmp_path):
    config = tiny()
    assert "distill" not in config.to_dict() and "distill" not in to_yaml(config)
    distilled = tiny("distill.evaluations=2", "train.teacher=x")
    (tmp_path / "config.yaml").write_text(to_yaml(distilled))
    assert load_config(tmp_path / "config.yaml") == distilled
    changed = changed_keys(config.to_dict(), distilled.to_dict())
    assert "distill.evaluations" in changed and set(changed) <= {
        *(f"distill.{key}" for key in type(distilled.distill).model_fields), "train.teacher"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], "distill needs train.teacher"),
        (["train.teacher=x", "diffusion.prediction_type=epsilon"], "needs diffusion.prediction_type=v_prediction"),
        (["train.teacher=x", "train.teacher_weight=0.5"], "set train.teacher_weight=1"),
        (["train.teacher=x", "diffusion.density=angle"], "set diffusion.density=uniform"),
        (["train.teacher=x", "diffusion.min_snr_gamma=5"], "set diffusion.min_snr_gamma=null"),
        (["train.teacher=x", "distill.guidance_scale=2"], "needs model.num_classes"),
        (["train.teacher=x", "distill.evaluations=0"], "distill.evaluations = 0 should be greater than 0"),
        (["train.teacher=x", "distill.substeps=0"], "distill.substeps = 0 should be greater than 0"),
        (["train.teacher=x", "distill.order=3"], "distill.order = 3 should be 1 or 2"),
        (["train.teacher=x", "distill.grid=even"], "distill.grid = 'even' should be 'uniform', 'log-snr' or 'angle'"),
        (["train.teacher=x", "distill.steps=4"], "unknown key 'distill.steps'"),
    ],
)
def test_configs_that_cannot_distill_are_refused(tiny, overrides, words):
    with pytest.raises(UserError) as error:
        tiny("distill.grid=uniform", *overrides)
    assert words in str(error.value) and "\n" not in str(error.value)


def small(seed, folder, tiny, *overrides):
    """A run of one step."""
    train(tiny(f"train.seed={seed}", "train.steps=1", *overrides), folder, progress=False)
    return folder


def test_short_schedules_epsilon_and_lost_teachers_are_refused(tiny, tmp_path):
    name = f"train.teacher={json.dumps(str(tmp_path / 'teacher'))}"
    small(0, tmp_path / "teacher", tiny, "diffusion.prediction_type=epsilon")
    cases = [
        ((name, "distill.evaluations=4"), "has prediction_type = epsilon, here v_prediction"),
        (
            (name, "distill.evaluations=4", "diffusion.num_train_timesteps=10"),
            "16 evaluations of the log-snr grid",
        ),
        (("train.teacher=nowhere", "distill.evaluations=4"), "no model at nowhere"),
    ]
    for overrides, words in cases:
        with pytest.raises(UserError, match=words) as error:
            train(tiny(*overrides), tmp_path / "run", progress=False)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists()


def test_a_distilled_teacher_knows_its_own_steps_alone(tiny, tmp_path):
    small(0, tmp_path / "teacher", tiny)
    uniform = ("train.steps=1", "distill.grid=uniform")
    distill(tmp_path / "teacher", tmp_path / "eight", evaluations=8, overrides=uniform, progress=False)
    name = f"train.teacher={json.dumps(str(tmp_path / 'eight'))}"
    with pytest.raises(UserError, match=r"was distilled and is only valid at t = \[999, .*: choose its own teacher"):
        train(tiny(name), tmp_path / "run", progress=False)
    for overrides in (("distill.substeps=4", "distill.order=1"), ("distill.substeps=2", "distill.order=2")):
        with pytest.raises(UserError, match=r"only supports DDIM at t = \[999, 874, .*needs distill\.order=1"):
            train(tiny(name, "distill.evaluations=4", *uniform, *overrides), tmp_path / "run", progress=False)
    fits = ("distill.evaluations=4", "distill.substeps=2", "distill.order=1", *uniform)
    train(tiny(name, *fits), tmp_path / "run", progress=False)


@pytest.mark.parametrize("kind", ["spiking", "quantized", "ann"])
def test_the_command_distills_resumes_and_samples(sddpm, tiny, tmp_path, kind):
    config = tiny("train.precision=bf16") if kind == "spiking" else other_kind(kind)
    train(config, tmp_path / "teacher", progress=False)
    options = ("--evaluations", 2, "--set", "distill.grid=uniform", "--set", "train.steps=3", "--set",
               "train.sample_every=3", "--set", "train.sample_count=1")  # fmt: skip
    code, out, err = sddpm("distill", "teacher", "student", *options)
    assert code == 0 and "the model is in student" in out, err
    kept = load_config(tmp_path / "student" / "config.yaml")
    assert kept.train.teacher == str(Path("teacher").resolve()) and kept.distill.evaluations == 2
    assert kept.model == config.model and kept.data == config.data
    assert sddpm("train", "--out", "student", "--resume", "student/config.yaml", "--set", "train.steps=4")[0] == 0
    assert list((tmp_path / "student" / "samples").glob("*.png"))
    for folder in ("student", "average", *(["spikes"] if kind == "quantized" else [])):
        if folder == "average":
            average([tmp_path / "student", tmp_path / "student"], tmp_path / folder)
        if folder == "spikes":
            assert sddpm("convert-ann", "student", folder)[0] == 0
            more = ("--init-from", folder, "--out", "leg", "--set", "train.steps=1")
            assert sddpm("train", "spikes/config.yaml", *more)[0] == 0
            assert load_pipeline(tmp_path / "leg").scheduler.config.timesteps == [999, 499]
        assert load_pipeline(tmp_path / folder).scheduler.config.timesteps == [999, 499]
        assert sddpm("sample", folder, "--count", 1, "--out", f"{folder}.png")[0] == 0
        code, _, err = sddpm("sample", folder, "--count", 1, "--num-inference-steps", 50, "--out", "other.png")
        assert code == 2 and "this model was distilled to 2 evaluations, at t = 999, 499" in err


def other_kind(kind):
    sizes = ["data.image_size=8", "model.base_channels=8", "model.channel_mult=[1,2]", "model.num_res_blocks=1",
             "train.batch_size=8", "train.steps=3", "train.sample_every=0", "train.tensorboard=false",
             "train.precision=float32"]  # fmt: skip
    return load_config("digits", [f"model.kind={kind}", *sizes])


def test_packing_and_release_keep_the_time_steps(tiny, tmp_path):
    small(0, tmp_path / "teacher", tiny)
    overrides = ["train.steps=1", "distill.grid=uniform"]
    distill(tmp_path / "teacher", tmp_path / "run", evaluations=2, overrides=overrides, progress=False)
    pack_run(tmp_path / "run", tmp_path / "pack")
    unpack_run(tmp_path / "pack", tmp_path / "unpacked")
    release(tmp_path / "unpacked", tmp_path / "released", hardware="one core")
    for name in ("unpacked", "released"):
        pipeline = load_pipeline(tmp_path / name)
        assert (pipeline.scheduler.config.timesteps, pipeline.scheduler.config.distilled) == ([999, 499], True)
        assert pipeline.config.num_inference_steps == 2
    card = (tmp_path / "released" / "README.md").read_text()
    assert "num_inference_steps=2" in card and "A sample needs 2 evaluations" in card
    assert str(tmp_path) not in (tmp_path / "released" / "config.yaml").read_text()
    with pytest.raises(UserError, match="with ddim: leave out `solver`"):
        release(tmp_path / "run", tmp_path / "other", hardware="one core", solver="unipc")


@pytest.mark.parametrize("out", [".", "..", "/"])
def test_a_folder_without_a_name_is_refused(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^cannot write .*: a folder name is needed"):
        distill("nothing", out)


def test_halving_from_32_needs_no_grid_of_its_own():
    """At 1,000 diffusion steps: each stage's teacher is evaluated where the stage before was trained."""
    base, before = ROOT / "configs" / "mnist_small.yaml", None
    for i, evaluations in enumerate(stage_counts(4, 32)):
        given = {"diffusion.prediction_type": "v_prediction"}
        config = student_config(base, "mnist", evaluations, given, halving=True, first=i == 0)
        nodes = walk_timesteps(config.diffusion, config.distill)
        assert nodes.shape == (evaluations, 2)
        assert before is None or nodes.flatten().tolist() == before
        before = nodes[:, 0].tolist()
    assert before == [999, 749, 499, 249]


def test_progressive_halving_is_a_run_a_stage(tiny, tmp_path):
    small(0, tmp_path / "teacher", tiny)
    options = {"train.steps": 2, "distill.grid": "uniform", "distill.x0_scale": 1.01}
    distill(tmp_path / "teacher", tmp_path / "out", evaluations=2, halve_from=8, overrides=options, progress=False)
    found = []
    for folder in ("out-8", "out-4", "out"):
        config = load_config(tmp_path / folder / "config.yaml")
        d = config.distill
        found.append((d.evaluations, d.substeps, d.order, d.x0_scale, Path(config.train.teacher).name))
    assert found == [(8, 2, 2, 1.01, "teacher"), (4, 2, 1, 1.0, "out-8"), (2, 2, 1, 1.0, "out-4")]
    assert load_pipeline(tmp_path / "out").scheduler.config.timesteps == [999, 499]


def test_an_interrupted_stage_goes_on(tiny, tmp_path, monkeypatch):
    """The process ends in the second stage: the call with resume finishes both to the bits of one that was whole."""
    small(0, tmp_path / "teacher", tiny)
    call = {"evaluations": 2, "halve_from": 4, "overrides": ["train.steps=4", "train.checkpoint_every=2"]}
    distill(tmp_path / "teacher", tmp_path / "whole", **call, progress=False)
    monkeypatch.setattr("sddpm.training.loop.update", killed_at(7))
    with pytest.raises(KeyboardInterrupt):
        distill(tmp_path / "teacher", tmp_path / "parts", **call, progress=False)
    monkeypatch.undo()
    with pytest.raises(UserError, match="not empty"):
        distill(tmp_path / "teacher", tmp_path / "parts", **call, progress=False)
    shutil.move(tmp_path / "teacher", tmp_path / "gone")
    with pytest.raises(UserError, match="no model at"):
        distill(tmp_path / "teacher", tmp_path / "parts", **call, resume=True, progress=False)
    shutil.move(tmp_path / "gone", tmp_path / "teacher")
    distill(tmp_path / "teacher", tmp_path / "parts", **call, resume=True, progress=False)
    one, other = (load_pipeline(tmp_path / name).unet.state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_signal_during_the_last_write_of_a_stage_ends_the_call(tiny, tmp_path, monkeypatch):
    from sddpm.training.loop import Loop

    small(0, tmp_path / "teacher", tiny)
    write = Loop._write

    def interrupted(loop, stopped_by):
        if loop.state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        write(loop, stopped_by)

    call = {"evaluations": 2, "halve_from": 4, "overrides": ["train.steps=2"], "progress": False}
    monkeypatch.setattr(Loop, "_write", interrupted)
    assert distill(tmp_path / "teacher", tmp_path / "out", **call).stopped_by == "SIGTERM"
    assert (tmp_path / "out-4" / "model").is_dir() and not (tmp_path / "out").exists()
    monkeypatch.undo()
    assert distill(tmp_path / "teacher", tmp_path / "out", **call, resume=True).stopped_by == "steps"


def test_the_loss_of_a_student_is_not_weighted_as_its_teachers_was(tiny, tmp_path):
    small(0, tmp_path / "teacher", tiny, "diffusion.min_snr_gamma=5")
    config = student_config(tmp_path / "teacher" / "config.yaml", "teacher", 4, {})
    assert config.diffusion.min_snr_gamma is None


def test_a_folder_of_data_with_the_name_of_a_packaged_model_is_not_the_teacher(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()
    assert named("mnist") == "mnist"
    (tmp_path / "mnist" / "model").mkdir()
    assert named("mnist") == str(tmp_path / "mnist")


def killed_at(step):
    """`update`, of which that call is interrupted."""
    from sddpm.training.step import update

    done = []

    def interrupted(*arguments):
        done.append(None)
        if len(done) == step:
            raise KeyboardInterrupt
        return update(*arguments)

    return interrupted


def test_numbers_that_are_none_are_refused(sddpm, tiny, tmp_path):
    small(0, tmp_path / "teacher", tiny)
    for options, words in [
        (("--evaluations", 0), "--evaluations must be a whole number of at least 1, not 0"),
        (("--evaluations", 3, "--halve-from", 8), "--halve-from 8 is not 3 times a power of two: choose 24"),
        (("--evaluations", 400), "1600 evaluations of the log-snr grid coincide on a noise schedule of 1000"),
        (("--set", "distill.evaluations=8"), "distill.evaluations is set by --evaluations 4: leave it out"),
        (("--set", "train.teacher=x"), "train.teacher is the model that is distilled: leave it out"),
        (("--halve-from", 8, "--set", "distill.substeps=4"), "two steps of the teacher in one: leave out distill.sub"),
        (("--set", "diffusion.prediction_type=epsilon"), "distill needs diffusion.prediction_type=v_prediction"),
    ]:
        code, _, err = sddpm("distill", "teacher", "out", *options)
        assert code == 2 and words in err and err.count("\n") == 1, err
        assert not (tmp_path / "out").exists()
    shutil.copytree(tmp_path / "teacher" / "model", tmp_path / "bare")
    code, _, err = sddpm("distill", "bare", "out")
    assert code == 2 and "bare does not say how it was trained: a run, or a model with a config.yaml" in err
