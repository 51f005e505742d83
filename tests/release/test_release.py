"""A released model is the run's model, rounded; its card says what was measured of it, and nothing of anything else."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from sddpm import load_pipeline
from sddpm.data import unit_to_uint8
from sddpm.diffusion.moments import Moments
from sddpm.errors import UserError
from sddpm.evaluation.protocols import OWN_STATISTICS
from sddpm.evaluation.sampling import model_digest
from sddpm.figures.grid import class_rows
from sddpm.figures.signals import signal_grid
from sddpm.guidance import store_guidance, store_sampler, store_x0_scale
from sddpm.pipelines import Sampler, SpikingDiffusionPipeline
from sddpm.release import halve, read_evaluations, release
from sddpm.training import distill, load_config, train
from sddpm.training.history import stages_of

TINY = [
    "data.dataset=digits",
    "data.image_size=8",
    "data.limit=64",
    "model.base_channels=8",
    "model.channel_mult=[1, 2]",
    "train.steps=2",
    "train.batch_size=8",
    "train.warmup_steps=0",
    "train.sample_every=0",
    "train.precision=float32",
    "train.tensorboard=false",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train(load_config("digits", TINY), folder)
    return folder


@pytest.fixture(scope="module")
def released(run) -> Path:
    out = run.parent / "tiny-digits"
    release(run, out, hardware="a test")
    return out


def header(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def evaluation_of(model: Path, **changes) -> dict:
    metric = {
        "label": "fad",
        "value": 3.5,
        "interval_95": [3.0, 4.0],
        "departures": ["2,000 samples instead of 10,000"],
    }
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "protocol": {"name": "fsddim"},
        "metrics": {"fad": metric},
        "samples": {"sha256": model_digest(model), "count": 2000, "solver": "ddim", "steps": 50, "v_threshold": None},
        "reference": {"path": "/somewhere/digits", "split": "test"},
        "near_copies": {"share": 0.01},
    } | changes


def test_half_precision_is_of_what_has_many_values_only():
    generator = torch.Generator().manual_seed(0)
    weights = {"conv": torch.randn(4, 3, 3, 3, generator=generator), "variance": torch.tensor([1e-9, 1e9])}
    weights["count"] = torch.tensor(7)
    found = halve(weights)
    assert found["conv"].dtype == torch.float16 and found["count"].dtype == torch.int64
    assert torch.equal(found["variance"], weights["variance"])
    # A float16 has 11 significant bits: its relative error is at most 2^-11 where it is no subnormal.
    relative = (found["conv"].double() / weights["conv"].double() - 1).abs()
    assert 0 < relative[weights["conv"].abs() > 2**-14].max() <= 2**-11


@pytest.mark.parametrize("value", [1e5, float("nan"), float("inf")])
def test_weights_that_half_precision_cannot_hold_are_refused(value):
    with pytest.raises(UserError, match="conv has NaN or values out of the range of half precision"):
        halve({"conv": torch.tensor([[1.0, value]])})


def test_the_released_model_is_the_runs_rounded(run, released):
    before, after = load_pipeline(run).unet.state_dict(), load_pipeline(released).unet.state_dict()
    expected = {k: v.half().float() if v.is_floating_point() and v.ndim > 1 else v for k, v in before.items()}
    assert before.keys() == after.keys()
    assert all(torch.equal(expected[k], after[k]) and after[k].dtype == before[k].dtype for k in before)
    diffusers_reads = SpikingDiffusionPipeline.from_pretrained(released).unet.state_dict()
    assert all(torch.equal(expected[k], diffusers_reads[k]) for k in before)


def test_it_is_half_as_large_and_names_no_folder_of_its_maker(run, released):
    sizes = [(path / "unet/diffusion_pytorch_model.safetensors").stat().st_size for path in (run / "model", released)]
    assert sizes[1] < 0.65 * sizes[0]
    for file in released.rglob("*"):
        if file.suffix in (".json", ".md", ".yaml"):
            assert str(run.parent) not in file.read_text()


def test_its_config_trains_it_again(released):
    config = load_config(released / "config.yaml")
    assert config.train.steps == 2 and config.data.dataset == "digits" and config.data.path is None


def test_the_card_says_that_nothing_was_measured(released):
    card = (released / "README.md").read_text()
    assert "Not measured." in card
    assert "2 x 8 = 16 images" in card and "| hardware | a test |" in card
    head = header(card)
    assert head["datasets"] == ["digits"] and head["license"] == "apache-2.0" and "model-index" not in head


def test_scores_come_onto_the_card_when_they_are_of_the_released_weights(run, released, tmp_path):
    (tmp_path / "fad.json").write_text(json.dumps(evaluation_of(released)))
    out = tmp_path / "tiny-digits"
    facts = release(run, out, name="tiny-digits", hardware="a test", evaluations=[tmp_path / "fad.json"])
    card = (out / "README.md").read_text()
    assert "| fad | 3.5 | 3 to 4 | 2,000 | DDIM-50 | digits test | fsddim: 2,000 samples instead of 10,000 |" in card
    assert "Near copies of training images: 1.00% of 2,000 samples." in card
    assert header(card)["model-index"][0]["results"][0]["metrics"][0]["value"] == 3.5
    energy = facts.account.ledger.per_sample(facts.account.costs[0]).total
    assert energy == pytest.approx(50 * facts.account.ledger.per_evaluation(facts.account.costs[0]).total)


def test_a_model_that_is_there_keeps_its_files_and_so_its_evaluations(run, released, tmp_path):
    out = tmp_path / "tiny-digits"
    release(run, out, hardware="a test")
    config = out / "unet/config.json"
    older = {key: value for key, value in json.loads(config.read_text()).items() if key != "num_classes"}
    config.write_text(json.dumps(older))  # as a version of the package wrote it that knew no classes
    (tmp_path / "fad.json").write_text(json.dumps(evaluation_of(out)))
    before = model_digest(out)
    release(run, out, hardware="another", evaluations=[tmp_path / "fad.json"])
    assert model_digest(out) == before and json.loads(config.read_text()) == older
    assert "| hardware | another |" in (out / "README.md").read_text()


def test_scores_of_other_weights_are_refused_and_nothing_is_written(run, released, tmp_path):
    other = tmp_path / "other"
    SpikingDiffusionPipeline.from_pretrained(released).save_pretrained(other)
    file = other / "unet/diffusion_pytorch_model.safetensors"
    save_file({k: v + 1 if v.is_floating_point() else v for k, v in load_file(file).items()}, file, {"format": "pt"})
    (tmp_path / "fad.json").write_text(json.dumps(evaluation_of(other)))
    with pytest.raises(UserError, match="is of another model"):
        release(run, tmp_path / "out", hardware="a test", evaluations=[tmp_path / "fad.json"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"samples": {}}'])
def test_files_that_are_no_evaluation_are_refused(released, tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match="was not written by sddpm evaluate of a model"):
        read_evaluations([tmp_path / "x.json"], released)


@pytest.mark.parametrize(
    ("text", "words"), [(None, "there is no such file"), ("{}", "was not written by sddpm evaluate of a model")]
)
def test_bad_evaluations_are_found_before_the_model_is_read(run, tmp_path, sddpm, monkeypatch, text, words):
    if text is not None:
        (tmp_path / "x.json").write_text(text)
    loaded = []
    monkeypatch.setattr("sddpm.release.package.load_pipeline", loaded.append)
    code, out, err = sddpm("release", run, "out", "--hardware", "a test", "--evaluation", "x.json")
    assert (code, out, loaded) == (2, "", []) and words in err and "x.json" in err and err.count("\n") == 1


def test_scores_of_other_weights_are_found_before_the_energy_is_counted(run, released, tmp_path, monkeypatch):
    content = evaluation_of(released)
    content["samples"]["sha256"] = "another"
    (tmp_path / "x.json").write_text(json.dumps(content))
    counted = []
    monkeypatch.setattr("sddpm.release.package.measure_sampling", lambda *_, **__: counted.append(1))
    with pytest.raises(UserError, match="is of another model"):
        release(run, tmp_path / "out", hardware="a test", evaluations=[tmp_path / "x.json"])
    assert not counted


def test_a_folder_that_is_no_run_is_refused(tmp_path, released):
    with pytest.raises(UserError, match=r"not a training run: it has no config\.yaml"):
        release(tmp_path, tmp_path / "out", hardware="a test")
    with pytest.raises(UserError, match=r"cannot read .*metrics\.jsonl"):
        release(released, tmp_path / "out", hardware="a test")  # what was released already is no run any more


def test_the_card_tells_all_stages_and_names_no_folder_of_the_teacher(run, released, tmp_path):
    """A second training from the first, which also teaches it; then a third from what was released."""
    assert "All stages" not in (released / "README.md").read_text()
    options = [*TINY, f"train.teacher={json.dumps(str(run))}", "train.steps=3"]
    train(load_config("digits", options), tmp_path / "second", init_from=run, progress=False)
    release(tmp_path / "second", tmp_path / "out", hardware="a test")
    card = (tmp_path / "out" / "README.md").read_text()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in card.splitlines() if line.startswith("| trained")
    ]
    assert [row[:6] + row[7:] for row in rows] == [
        ["trained", "spiking", "4", "digits", "2", "16", ""],
        ["trained", "spiking", "4", "digits", "3", "24", run.name],
    ]
    assert str(run.parent) not in card and load_config(tmp_path / "out" / "config.yaml").train.teacher == run.name
    train(load_config("digits", TINY), tmp_path / "third", init_from=tmp_path / "out", progress=False)
    assert [stage.steps for stage in stages_of(tmp_path / "third")] == [2, 3, 2]


def test_a_damaged_history_is_named(run, tmp_path):
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    for text in ("- what: trained\n", "42", "{", "- 1"):
        (tmp_path / "history.yaml").write_text(text)
        with pytest.raises(UserError, match=r"history\.yaml is damaged"):
            stages_of(tmp_path)


def test_a_model_of_signals_is_drawn_and_described_as_one(tmp_path):
    settings = ["data.image_size=64", "data.dataset=gaussian-process", "model.dims=1", "train.steps=1"]
    train(load_config("gaussian_process", [*TINY, *settings]), tmp_path / "run", progress=False)
    facts = release(tmp_path / "run", tmp_path / "waves", hardware="a test")
    out = tmp_path / "waves"
    assert load_pipeline(out).signal_range == load_pipeline(tmp_path / "run").signal_range
    assert facts.account.twin is None  # which would be one of images, 64 x 64
    card = (out / "README.md").read_text()
    assert "that draws signals of 64 samples like those of gaussian-process." in card and " images" not in card
    assert "--out signals.npz" in card and "pipeline_tag" not in header(card)
    pipeline = SpikingDiffusionPipeline.from_pretrained(out)
    signals = pipeline(seeds=range(64), solver="ddim", num_inference_steps=50, output_type="pt", progress=False).images
    signal_grid(signals, columns=8).savefig(tmp_path / "expected.png")
    with Image.open(tmp_path / "expected.png") as expected, Image.open(out / "samples.png") as drawn:
        assert expected.size == drawn.size and np.array_equal(np.asarray(expected), np.asarray(drawn))


def test_a_model_with_classes_is_drawn_in_a_row_for_each_and_its_card_names_them(tmp_path):
    train(load_config("digits", [*TINY, "model.num_classes=10"]), tmp_path / "run", progress=False)
    out = tmp_path / "numbers"
    release(tmp_path / "run", out, hardware="a test", steps=2)
    card = (out / "README.md").read_text()
    assert "\nIts classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9. " in card
    assert 'sddpm sample . --class "0" --count 16' in card and 'class_labels="random"' in card
    assert "![8 samples of each class, seeds 0 to 7, none left out](samples.png)\n" in card
    pipeline, rows = load_pipeline(out), []
    for digit in range(10):
        rows.append(pipeline(seeds=range(8), class_labels=digit, output_type="pt", progress=False).images)
    expected = class_rows(unit_to_uint8(torch.cat(rows)), list("0123456789"), scale=2)
    with Image.open(out / "samples.png") as drawn:
        assert expected.size == drawn.size and np.array_equal(np.asarray(expected), np.asarray(drawn))


def test_the_card_of_a_model_without_classes_has_none(released):
    card = (released / "README.md").read_text()
    assert "class" not in card.split("## Training")[0]
    assert "![64 samples, seeds 0 to 63, none left out](samples.png)\n" in card


def test_a_model_samples_with_the_solver_it_was_released_with(run, released, tmp_path):
    before = (released / "scheduler" / "scheduler_config.json").read_bytes()
    other = tmp_path / "other"
    for _ in range(2):  # released again, it stays as it is
        release(run, other, hardware="a test", solver="sde-dpm++")
        pipe = SpikingDiffusionPipeline.from_pretrained(other)
        assert pipe.solver == "sde-dpm++" and "(sde-dpm++ with 50 steps)" in (other / "README.md").read_text()
    options = {"seeds": [1], "num_inference_steps": 3, "output_type": "np", "progress": False}
    images = pipe(**options).images
    assert np.array_equal(images, load_pipeline(released)(solver="sde-dpm++", **options).images)
    assert not np.array_equal(images, load_pipeline(released)(**options).images)

    release(run, other, hardware="a test")  # the same weights, another solver
    assert load_pipeline(other).solver == "ddim"
    assert (other / "scheduler" / "scheduler_config.json").read_bytes() == before
    with pytest.raises(UserError, match="unknown solver 'best'"):
        release(run, other, hardware="a test", solver="best")


def test_a_model_samples_with_the_scale_it_was_released_with(run, tmp_path, sddpm):
    other = tmp_path / "model"
    for scale in (1.01, 1.02):  # the same weights, another scale
        release(run, other, hardware="a test", x0_scale=scale)
        assert load_pipeline(other).x0_scale == scale
    content = evaluation_of(other)
    content["samples"]["x0_scale"] = 1.02
    (tmp_path / "scores.json").write_text(json.dumps(content))
    release(run, other, hardware="a test", x0_scale=1.02, evaluations=[tmp_path / "scores.json"])
    assert "DDIM-50, x0_scale 1.02 |" in (other / "README.md").read_text()
    for options, scale in (((), 1.02), (("--x0-scale", "1"), 1.0)):
        code, _, err = sddpm("sample", "model", "--count", 1, "--steps", 3, "--out", f"{scale}.npz", *options)
        assert code == 0, err
        expected = load_pipeline(other)(seeds=[0], x0_scale=scale, num_inference_steps=3, output_type="pt").images
        with np.load(tmp_path / f"{scale}.npz") as written:
            assert np.array_equal(written["arr_0"][0], unit_to_uint8(torch.as_tensor(expected))[0].permute(1, 2, 0))
    assert sddpm("info", "model")[1].count("x0_scale     1.02") == 1
    code, _, err = sddpm("sample", "model", "--x0-scale", "-1", "--out", "no.png")
    assert code == 2 and "x0_scale must be a positive number" in err and not (tmp_path / "no.png").exists()
    with pytest.raises(UserError, match="x0_scale must be"):
        release(run, tmp_path / "none", hardware="a test", x0_scale=float("inf"))


def test_a_scale_stored_with_the_run_is_released_unless_another_is_given(run, tmp_path):
    scaled = tmp_path / "run"
    shutil.copytree(run, scaled)
    store_x0_scale(scaled, 1.02)
    for options, scale in (({}, 1.02), ({"x0_scale": 1.03}, 1.03), ({"x0_scale": 1.0}, 1.0)):
        release(scaled, tmp_path / "out", hardware="a test", **options)
        assert load_pipeline(tmp_path / "out").x0_scale == scale


def test_the_command_line_samples_with_the_models_own_solver(run, tmp_path, sddpm):
    release(run, tmp_path / "model", hardware="a test", solver="sde-dpm++")
    for options, solver in (((), "sde-dpm++"), (("--solver", "ddim"), "ddim")):
        code, out, _ = sddpm("sample", "model", "--count", 1, "--steps", 3, "--out", f"{solver}.npz", *options)
        assert code == 0 and f"{solver} with 3 steps" in out
        expected = load_pipeline(tmp_path / "model")(
            seeds=[0], solver=solver, num_inference_steps=3, output_type="pt"
        ).images
        with np.load(tmp_path / f"{solver}.npz") as content:
            assert np.array_equal(content["arr_0"][0], unit_to_uint8(torch.as_tensor(expected))[0].permute(1, 2, 0))


def test_steps_time_steps_and_named_samplers_are_released(run, tmp_path):
    scaled = tmp_path / "run"
    shutil.copytree(run, scaled)
    store_sampler(scaled, "fast", Sampler("unipc", 3))
    own = {"solver": "dpm++", "timesteps": (999, 500, 9), "x0_scale": 1.02}
    facts = release(scaled, tmp_path / "out", hardware="a test", **own, sampler="fast")
    pipe = load_pipeline(tmp_path / "out")
    assert pipe.default_sampler == "fast" and pipe.samplers == {"fast": Sampler("unipc", 3)}
    assert (pipe.solver, pipe.timesteps, pipe.num_inference_steps, pipe.x0_scale) == ("dpm++", (999, 500, 9), 3, 1.02)
    assert len(facts.account.ledger.evaluations) == 3
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- `fast`, the default: unipc with 3 steps\n" in card and "pipe(seeds=range(16)).images" in card
    release(scaled, tmp_path / "own", hardware="a test", steps=4, sampler="own")
    pipe = load_pipeline(tmp_path / "own")
    assert pipe.default_sampler is None and pipe.num_inference_steps == 4 and list(pipe.samplers) == ["fast"]
    assert "num_inference_steps=4)" in (tmp_path / "own" / "README.md").read_text()
    for bad, message in (
        ({"steps": 0, "sampler": "own"}, "num_inference_steps must be"),
        ({"timesteps": (5, 9), "sampler": "own"}, "`timesteps` must be"),
        ({"solver": "ddim"}, "the default sampler fast of .* would hide `solver`: give `sampler=own` too"),
        ({"x0_scale": 1.0}, "would hide `x0_scale`"),
        ({"sampler": "slow"}, "unknown sampler 'slow': choose one of fast, own"),
    ):
        with pytest.raises(UserError, match=message):
            release(scaled, tmp_path / "none", hardware="a test", **bad)
    assert not (tmp_path / "none").exists()


def test_the_card_of_a_distilled_model(tmp_path):
    """It says what it was distilled from, how, and with which command; what is released still is a distilled model."""
    v = [*TINY, "diffusion.prediction_type=v_prediction"]
    train(load_config("digits", v), tmp_path / "teacher")
    overrides = ["train.steps=1", "distill.grid=log-snr", "distill.order=2", "distill.x0_scale=1.02"]
    distill(tmp_path / "teacher", tmp_path / "run", evaluations=3, overrides=overrides, progress=False)
    release(tmp_path / "run", tmp_path / "three", hardware="a test")
    released = load_pipeline(tmp_path / "three")
    assert released.scheduler.config.distilled and released.num_inference_steps == 3
    card = (tmp_path / "three" / "README.md").read_text()
    times = ", ".join(map(str, released.timesteps))
    assert f"Distilled to 3 evaluations, at t = {times};" in card
    assert "teacher used 4 steps of DPM-Solver++(2M) with x0_scale 1.02." in card
    assert "| command | `sddpm train config.yaml --init-from teacher --data FOLDER`" in card
    assert load_config(tmp_path / "three" / "config.yaml").distill.evaluations == 3


def test_an_evaluation_without_reference_or_copies_comes_onto_the_card(released, tmp_path):
    bare = evaluation_of(released, reference={"kind": "none"}, near_copies={"why": "folder needs a path"})
    (tmp_path / "is.json").write_text(json.dumps(bare))
    (found,) = read_evaluations([tmp_path / "is.json"], released)
    assert (found.reference, found.near_copies, found.sampler) == ("", None, "DDIM-50")


def test_a_score_says_how_its_samples_were_drawn(released, tmp_path):
    content = evaluation_of(released, fad_statistics={"path": "x.npz"})
    content["samples"] |= {"timesteps": [999, 500], "eta": 0.5, "class": "3", "guidance_scale": 3.0, "x0_scale": 1.02}
    content["samples"] |= {"exit_tolerance": 0.3, "v_threshold": "0.99x"}
    (tmp_path / "fad.json").write_text(json.dumps(content))
    (found,) = read_evaluations([tmp_path / "fad.json"], released)
    assert found.sampler == (
        "DDIM at 2 time steps, threshold 0.99x, x0_scale 1.02, eta 0.5, class 3, guidance scale 3.0, exit tolerance 0.3"
    )
    assert found.reference == "digits test (published statistics)"
    content["metrics"]["fad"]["departures"].append(OWN_STATISTICS)
    content["samples"] |= {"class": "random", "guidance_scale": 1.0, "eta": 0.0, "exit_tolerance": None}
    (tmp_path / "fad.json").write_text(json.dumps(content))
    (found,) = read_evaluations([tmp_path / "fad.json"], released)
    assert found.reference == "digits test" and found.sampler.endswith("x0_scale 1.02")


def test_what_was_found_between_two_releases_is_released(run, tmp_path):
    scaled, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(run, scaled)
    release(scaled, out, hardware="a test")
    store_guidance(scaled, {"v_threshold": 0.9})
    release(scaled, out, hardware="a test")
    assert load_pipeline(out).guided_thresholds == 0.9
    pipeline = load_pipeline(scaled)
    total = pipeline.scheduler.config.num_train_timesteps
    moments = Moments([0.5] * total, [0.01] * total, 10).to_dict()
    config = scaled / "model" / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "moments": moments}))
    release(scaled, out, hardware="a test")
    assert load_pipeline(out).scheduler.config.moments == moments
