"""An average is the mean of the weights and nothing else, remembers of what, and is refused where there is no mean."""

import pytest
import torch

from sddpm import load_pipeline
from sddpm.diffusion.moments import Moments
from sddpm.diffusion.solvers import switch_solver
from sddpm.errors import UserError
from sddpm.release import release
from sddpm.training import load_config, train
from sddpm.training.averaging import average, mean_state
from sddpm.training.history import stages_of


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny):
    """A short run, and one that went on from it."""
    folder = tmp_path_factory.mktemp("runs")
    settings = ("train.steps=2", "train.sample_every=0")
    train(tiny(*settings), folder / "first", progress=False)
    train(tiny(*settings, "train.seed=1"), folder / "second", init_from=folder / "first", progress=False)
    return folder / "second", folder / "first"


def state(path):
    return load_pipeline(path).unet.state_dict()


def test_the_mean_is_weighted_and_whole_numbers_are_kept():
    one = {"weight": torch.tensor([1.0, 3.0]), "count": torch.tensor(7)}
    other = {"weight": torch.tensor([5.0, -1.0]), "count": torch.tensor(9)}
    found = mean_state([one, other], [0.75, 0.25])
    assert found["weight"].tolist() == [2.0, 2.0] and found["count"].item() == 7


def test_a_mean_of_one_network_is_the_network(runs, tmp_path):
    average([runs[0], runs[0]], tmp_path / "mean")
    torch.testing.assert_close(state(tmp_path / "mean"), state(runs[0]), rtol=1e-6, atol=1e-8)


def test_shares_are_of_the_models_in_their_order(runs, tmp_path):
    average(runs, tmp_path / "mean", [0.8, 0.2])
    second, first, mean = state(runs[0]), state(runs[1]), state(tmp_path / "mean")
    assert any(not torch.equal(second[name], first[name]) for name in mean)
    expected = {k: 0.8 * second[k] + 0.2 * first[k] if second[k].is_floating_point() else second[k] for k in mean}
    torch.testing.assert_close(mean, expected)


def test_what_was_kept_with_a_model_is_not_its_averages(runs, tmp_path):
    pipeline = load_pipeline(runs[0])
    pipeline.register_to_config(x0_scale=1.02)
    pipeline.save_pretrained(tmp_path / "scaled")
    average([tmp_path / "scaled", runs[1]], tmp_path / "mean")
    assert load_pipeline(tmp_path / "scaled").x0_scale == 1.02 and load_pipeline(tmp_path / "mean").x0_scale == 1


@pytest.mark.parametrize(("solver", "after"), [("dpm++", "dpm++"), ("analytic-dpm", "ddim")])
def test_moments_of_other_weights_are_left_out(runs, tmp_path, solver, after):
    pipeline = load_pipeline(runs[0])
    total = pipeline.scheduler.config.num_train_timesteps
    moments = Moments([0.5] * total, [0.01] * total, 10).to_dict()
    pipeline.scheduler.register_to_config(moments=moments)
    pipeline.register_modules(scheduler=switch_solver(pipeline.scheduler, solver))
    pipeline.save_pretrained(tmp_path / "measured")
    assert load_pipeline(tmp_path / "measured").scheduler.config.moments == moments
    average([tmp_path / "measured", runs[1]], tmp_path / "mean")
    mean = load_pipeline(tmp_path / "mean")
    assert mean.scheduler.config.get("moments") is None and mean.solver == after


def test_it_is_released_with_its_history(runs, tmp_path):
    average(runs, tmp_path / "mean", [0.6, 0.4])
    stages = stages_of(tmp_path / "mean")
    assert [stage.what for stage in stages] == ["trained", "trained", "averaged"]
    assert stages[-1].parts == "0.6 second + 0.4 first"
    release(tmp_path / "mean", tmp_path / "released", hardware="a test")
    card = (tmp_path / "released" / "README.md").read_text()
    assert "| averaged: 0.6 second + 0.4 first |" in card and "| steps x images | 2 x " in card
    assert stages_of(tmp_path / "released") == stages


def test_training_goes_on_from_it(runs, tmp_path, sddpm):
    average(runs, tmp_path / "mean")
    config = tmp_path / "mean" / "config.yaml"
    sddpm("train", config, "--init-from", tmp_path / "mean", "--out", tmp_path / "on")
    assert [stage.what for stage in stages_of(tmp_path / "on")][-2:] == ["averaged", "trained"]


def test_on_the_command_line(runs, tmp_path, sddpm):
    code, out, _ = sddpm("average", tmp_path / "mean", *runs, "--shares", "0.8,0.2")
    assert code == 0 and "the mean of 2 models" in out
    average(runs, tmp_path / "same", [0.8, 0.2])
    torch.testing.assert_close(state(tmp_path / "mean"), state(tmp_path / "same"), rtol=0, atol=0)


@pytest.mark.parametrize(
    "options, words",
    [
        (["--shares", "0.5"], "there are 2 models and 1 shares"),
        (["--shares", "0.5,0.6"], "must sum to 1, not 1.1"),
        (["--shares", "nan,1"], "must sum to 1, not nan"),
        (["--shares", "inf,1"], "must sum to 1, not inf"),
        (["--shares", "3,-2"], "a share must be 0 or more, not -2"),
        (["--shares", "half,half"], "--shares must be numbers separated by commas"),
    ],
)
def test_bad_shares_are_one_line_and_code_2(runs, tmp_path, sddpm, options, words):
    code, _, err = sddpm("average", tmp_path / "mean", *runs, *options)
    assert code == 2 and words in err and err.count("\n") == 1
    assert not (tmp_path / "mean").exists()


def test_one_model_has_no_mean(runs, tmp_path):
    with pytest.raises(UserError, match="needs two models or more, not 1"):
        average(runs[:1], tmp_path / "mean")


@pytest.mark.parametrize(
    "settings, words",
    [
        (["model.T=3"], "differ in T:"),
        (["model.kind=ann"], "is a SpikingUNet2DModel and .* a ANNUNet2DModel"),
        (["diffusion.prediction_type=epsilon"], "differ in prediction_type:"),
        (["diffusion.beta_schedule=cosine"], "differ in .*beta_schedule"),
    ],
)
def test_models_that_differ_in_more_than_weights(runs, tiny_settings, tmp_path, settings, words):
    kept = [setting for setting in tiny_settings if "ann" not in settings[0] or not setting.startswith("model.T=")]
    config = load_config("digits", [*kept, "train.steps=1", "train.sample_every=0", *settings])
    train(config, tmp_path / "other", progress=False)
    with pytest.raises(UserError, match=words):
        average([runs[0], tmp_path / "other"], tmp_path / "mean")
