"""`sddpm train`: arguments, errors in one line with exit code 2, the dry run."""

import re
from pathlib import Path

import pytest

from sddpm.cli import main
from sddpm.training import load_config
from sddpm.training.progress import Progress

TINY = [
    "data.image_size=8", "model.base_channels=8", "model.channel_mult=[1,2]", "model.num_res_blocks=1", "model.T=2",
    "model.patch_size=1", "train.batch_size=8", "train.steps=2", "train.sample_every=0", "train.tensorboard=false",
]  # fmt: skip
SETTINGS = [word for setting in TINY for word in ("--set", setting)]


@pytest.fixture
def sddpm(monkeypatch, capsys):
    """Run the command; returns exit code, stdout, stderr."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["sddpm", "train", *map(str, arguments)])
        code = 0
        try:
            main.run()
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def assert_one_error(result: tuple[int, str, str], pattern: str) -> None:
    code, _, errors = result
    assert code == 2
    assert re.match(rf"error: .*{pattern}", errors.splitlines()[-1]), errors
    assert "Traceback" not in errors


def test_trains_and_resumes_without_naming_the_config(sddpm, tmp_path):
    run = tmp_path / "run"
    code, out, _ = sddpm("digits", "--out", run, *SETTINGS)
    assert (code, out) == (0, f"trained 2 steps; the model is in {run / 'model'}\n")
    code, out, _ = sddpm("--resume", "--out", run, "--set", "train.steps=3")
    assert (code, out) == (0, f"trained 3 steps; the model is in {run / 'model'}\n")
    assert load_config(run / "config.yaml").train.steps == 3


def test_a_run_that_is_not_there_cannot_be_resumed(sddpm, tmp_path):
    assert_one_error(
        sddpm("--resume", "--out", tmp_path / "run"), r"no run to resume in \S+run: give the folder of a run"
    )


def test_signals_are_not_called_images(sddpm):
    settings = ["--set", "model.base_channels=8", "--set", "model.channel_mult=[1,2]", "--set", "model.T=2"]
    code, out, _ = sddpm("gaussian_process", "--dry-run", *settings, "--set", "train.batch_size=4")
    assert code == 0 and "10,000 signals of 1 x 64 from gaussian-process" in out and "steps of 4 signals" in out
    assert "images" not in out.partition("\ndata      ")[2]


def test_init_from(sddpm, tmp_path):
    assert sddpm("digits", "--out", tmp_path / "a", *SETTINGS)[0] == 0
    assert sddpm("digits", "--out", tmp_path / "b", "--init-from", tmp_path / "a", *SETTINGS)[0] == 0
    assert_one_error(sddpm("digits", "--out", tmp_path / "c", "--init-from", tmp_path, *SETTINGS), "is not a model")


def test_dry_run_says_what_would_be_and_writes_nothing(sddpm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = sddpm("digits", "--dry-run", *SETTINGS, "--set", "train.steps=4493")
    assert code == 0
    assert "1,797 images of 1 x 8 x 8" in out
    assert "4,493 steps of 8 images = 20.0 epochs" in out
    parameters = re.search(r"([\d,]+) parameters", out)
    assert parameters and 10_000 < int(parameters[1].replace(",", "")) < 100_000
    assert re.search(r"memory +about [\d.]+ GiB", out) and re.search(r"time +about [\d.e-]+ s per step", out)
    path = tmp_path / "shown.yaml"
    assert not list(tmp_path.iterdir())
    path.write_text(out[: out.index("\n\ndata ")])
    assert load_config(path) == load_config("digits", [*TINY, "train.steps=4493"])


def test_data_overrides_the_path(sddpm, tmp_path):
    result = sddpm("mnist_small", "--data", tmp_path / "my data, [really]", "--out", tmp_path / "run")
    assert_one_error(result, "no such folder or file: .*my data")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ([], "CONFIG is missing"),
        (["--resume"], "CONFIG is missing"),
        (["digist"], "did you mean digits"),
        (["digits", "--set", "train.sped=3"], "--set: unknown key 'train.sped'"),
        (["digits", "--set", "model.T=0"], "model.T = 0 should be greater than 0"),
        (["digits", "--set", "train.steps=-1"], "train.steps = -1 should be greater than 0"),
        (["digits", "--set", "data.image_size=15"], "sample_size 15 cannot be halved"),
        (["digits", "--resume", "--out", "nowhere"], "nothing to resume"),
        (["mnist_small", "--data", "nowhere"], "no such folder or file: nowhere"),
    ],
)
def test_bad_input(sddpm, tmp_path, monkeypatch, arguments, pattern):
    monkeypatch.chdir(tmp_path)
    assert_one_error(sddpm(*arguments), pattern)
    assert not list(tmp_path.iterdir())


def test_a_run_folder_that_exists(sddpm, tmp_path):
    (tmp_path / "something").touch()
    assert_one_error(sddpm("digits", "--out", tmp_path, *SETTINGS), "not empty: add --resume")


def test_the_dry_run_looks_at_the_weights_to_start_from(sddpm):
    assert_one_error(sddpm("digits", "--dry-run", *SETTINGS, "--init-from", "mnist"), "mnist does not fit the config")
    assert_one_error(
        sddpm("digits", "--dry-run", *SETTINGS, "--init-from", "mnits"), "no model at mnits.* did you mean mnist"
    )
    like = [f"model.{key}" for key in ("base_channels=32", "channel_mult=[1,2,4]", "num_res_blocks=1", "patch_size=2")]
    fitting = [
        word
        for setting in [*like, "model.T=2", "data.image_size=8", "train.batch_size=2"]
        for word in ("--set", setting)
    ]
    code, out, _ = sddpm("digits", "--dry-run", *fitting, "--init-from", "fashion-mnist-small")
    assert code == 0
    assert "parameters, starting from fashion-mnist-small, which differs: here " in out
    assert "T = 2 (there 4)" in out


def test_the_plan_the_first_step_and_a_run_that_is_finished(sddpm, tmp_path):
    run = ("--out", tmp_path / "run", "--set", "train.steps=3", "--set", "train.log_every=2")
    code, out, told = sddpm("digits", *SETTINGS, *run)
    assert code == 0
    plan, first, *_ = told.splitlines()
    assert re.fullmatch(
        r"training [\d,]+ parameters on cpu: steps 1 to 3 of 8 images, from 1,797 of 1 x 8 x 8 \(digits.*\)", plan
    )
    assert re.fullmatch(
        r"step 1/3 took \S+ s, at this speed \d+ seconds are left; the next line follows at step 2", first
    )
    assert out.startswith("trained 3 steps; ")
    code, out, told = sddpm("digits", *SETTINGS, *run, "--resume")
    assert (code, told) == (0, "")
    assert out.startswith("finished before: 3 steps; ")


@pytest.mark.parametrize(("seconds", "warned"), [(60.0, True), (0.1, False)])
def test_weeks_are_warned_of(capsys, seconds, warned):
    Progress(0, 500_000, shown=True).first(1, seconds, 100, compiled=False)
    told = capsys.readouterr().err
    assert ("warning: that is weeks" in told) == warned
    assert ("49.6 weeks" if warned else "13.9 hours") in told
