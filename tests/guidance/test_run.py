"""Whole searches where the truth is known, because the reference was sampled from the model itself."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from sddpm.errors import UserError
from sddpm.evaluation import SamplingSettings
from sddpm.guidance import guide, store_guidance
from sddpm.guidance.bootstrap import Estimate
from sddpm.guidance.proxy import NoisyImages
from sddpm.guidance.record import as_json, kept_with_model
from sddpm.guidance.report import draw, in_words, table, verdict
from sddpm.guidance.results import Loss, Proxy
from sddpm.guidance.settings import FRESH
from sddpm.models import SpikingUNet2DModel
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.pipelines.threshold_guidance import StagedThresholds


@pytest.fixture
def sampled(monkeypatch):
    """The seeds that are sampled (not only asked about), and with which thresholds."""
    seen = []
    stream = SpikingDiffusionPipeline.stream

    def watched(self, seeds, *, options, **rest):
        def batches():
            seen.append((options.v_threshold, list(seeds)))
            yield from found

        found = stream(self, seeds, options=options, **rest)
        return batches()

    monkeypatch.setattr(SpikingDiffusionPipeline, "stream", watched)
    return seen


def test_the_threshold_of_the_reference_is_found_and_beats_the_trained_one(settings, sampled_at):
    report = guide(settings(sampled_at(0.8), grid=(0.7, 0.8, 0.9, 1.1)))
    assert report.chosen == (0.8,) and report.beats_trained
    found = report.validation
    assert found.difference.interval[1] < 0 and found.value < found.trained_value
    assert all(each.below_zero for each in found.differences) and len(found.differences) == 2
    trained = next(each for each in report.trials if each.point == (1.0,))
    assert trained.difference.value == 0 and trained.difference.interval == (0, 0)
    assert sorted(each.point[0] for each in report.trials) == [0.7, 0.8, 0.9, 1.0, 1.1]
    lines = verdict(report)
    assert lines[1] == "verdict: 0.8 beats the trained thresholds beyond noise"
    assert "* " in table(report) and table(report).count("\n") == 5


def test_where_the_trained_threshold_is_the_truth_nothing_beats_it(settings, sampled_at):
    report = guide(settings(sampled_at(1.0), grid=(0.98, 0.99, 1.01, 1.02)))
    assert not report.beats_trained
    assert "trained thresholds" in " ".join(verdict(report)[:2]) and "beats" not in " ".join(verdict(report)[:2])


def test_the_same_seeds_at_every_threshold_and_fresh_ones_for_the_verdict(settings, sampled_at, sampled):
    reference = sampled_at(0.8)
    sampled.clear()
    guide(settings(reference, evaluation={"sampling": SamplingSettings(2, "ddim", first_seed=30)}))
    by_threshold = {}
    for threshold, seeds in sampled:
        by_threshold.setdefault(threshold, []).extend(seeds)
    search, fresh = list(range(30, 230)), list(range(FRESH + 30, FRESH + 230))
    assert set(by_threshold) == {0.8, 0.9, 1.0, 1.1}
    for threshold, seeds in by_threshold.items():
        assert sorted(seeds) == (search + fresh if threshold in (0.8, 1.0) else search)


def test_a_stopped_search_goes_on_and_nothing_is_sampled_twice(settings, sampled_at, sampled, monkeypatch):
    asked = settings(sampled_at(0.8))
    whole = guide(asked)
    fresh = replace(asked, evaluation=replace(asked.evaluation, work=asked.evaluation.work.with_name("again")))
    sampled.clear()

    stream = SpikingDiffusionPipeline.stream

    def failing(self, seeds, **options):
        if len(sampled) == 7:
            raise KeyboardInterrupt
        return stream(self, seeds, **options)

    monkeypatch.setattr(SpikingDiffusionPipeline, "stream", failing)
    with pytest.raises(KeyboardInterrupt):
        guide(fresh)
    monkeypatch.setattr(SpikingDiffusionPipeline, "stream", stream)
    resumed = guide(fresh)
    batches = [(threshold, seeds[0]) for threshold, seeds in sampled]
    assert len(batches) == len(set(batches)) == (4 * 2 + 2 * 2) * 2  # thresholds, seed sets, batches of 50
    assert resumed.trials == whole.trials and resumed.validation == whole.validation

    sampled.clear()
    assert guide(fresh).trials == whole.trials
    assert sampled == []


def test_layers_on_a_budget(settings, sampled_at):
    reference = sampled_at({"up.*": 0.7})
    asked = settings(reference, search="layers", groups=("middle", "decoder"), method="coordinate", low=0.6, budget=8)
    report = guide(asked)
    assert len(report.trials) == 8 and report.space.axes == ["middle", "decoder"]
    assert report.chosen[1] < 1
    best = min(report.trials, key=lambda each: each.value)
    assert best.point == report.chosen and best.value < report.trials[0].value
    draw(report)


def test_parts_of_the_denoising(settings, sampled_at):
    reference = sampled_at(StagedThresholds(1.0, 0.6, 500))
    report = guide(settings(reference, search="time", budget=10, low=0.5, high=1.2))
    assert report.space.axes == ["early", "late"]
    assert report.chosen[1] < 0.9 and report.beats_trained
    kept = kept_with_model(report)["v_threshold"]
    assert (kept["early"], kept["late"], kept["boundary"]) == (*report.chosen, 500)


def test_the_scale_of_the_reference_is_found_with_the_thresholds_that_are_kept(settings, sampled_at, model):
    store_guidance(model, {"v_threshold": 0.8})
    report = guide(settings(sampled_at(0.8, 0.3), search="x0-scale", grid=(0.3, 0.6, 1.4), proxy_images=4))
    assert report.chosen == (0.3,) and report.beats_trained
    assert report.space.axes == ["x0_scale"] and report.proxy is None
    assert verdict(report)[1:] == ["verdict: x0_scale 0.3 beats x0_scale 1 beyond noise"]
    found = json.loads(as_json(report, "sddpm guide", True))
    assert found["chosen_x0_scale"] == 0.3 and found["chosen"] is None and found["sampling"]["v_threshold"] == 0.8
    assert [trial["x0_scale"] for trial in found["trials"]] == [1.0, 0.3, 0.6, 1.4]
    draw(report)


def test_where_no_scale_is_the_truth_none_is_better(settings, sampled_at):
    report = guide(settings(sampled_at(1.0), search="x0-scale", grid=(0.6, 1.4)))
    assert not report.beats_trained and "x0_scale 1" in verdict(report)[0] + verdict(report)[-1]


def test_a_threshold_and_a_scale_together(settings, sampled_at):
    reference = sampled_at(0.7, 0.3)
    report = guide(settings(reference, search="scalar-x0-scale", budget=24, low=0.25, high=1.1))
    assert report.space.axes == ["threshold", "x0_scale"] and report.beats_trained
    assert report.chosen[0] < 0.9 and report.chosen[1] < 0.9
    kept = kept_with_model(report)
    assert (kept["v_threshold"], kept["protocol"]["x0_scale"]) == report.chosen
    assert table(report).splitlines()[0].split()[:2] == ["threshold", "x0_scale"]


def test_the_loss_is_ranked_against_the_metric(settings, sampled_at, monkeypatch):
    reference = sampled_at(0.8)
    asked, seen, of = settings(reference, proxy_images=12), [], NoisyImages.of
    monkeypatch.setattr(NoisyImages, "of", lambda images, total: seen.append(images) or of(images, total))
    report = guide(asked)
    with np.load(reference) as archive:  # twelve of its 400, from the first to the last
        chosen = torch.from_numpy(archive["arr_0"][[round(i * 399 / 11) for i in range(12)]])
    assert torch.equal(seen[0], chosen.permute(0, 3, 1, 2))
    proxy = report.proxy
    losses = [loss.value for loss in proxy.losses]
    assert [loss.point for loss in proxy.losses] == [each.point for each in report.trials]
    assert [loss.difference.value for loss in proxy.losses] == pytest.approx([each - losses[0] for each in losses])
    assert all(len(loss.by_tenth) == 10 and sum(loss.by_tenth) / 10 == pytest.approx(loss.value)
               for loss in proxy.losses)  # fmt: skip
    assert proxy.correlation == pytest.approx(spearmanr(losses, [each.value for each in report.trials]).statistic)
    assert 0 < proxy.p_value <= 1 and losses[[loss.point for loss in proxy.losses].index(proxy.best)] == min(losses)
    assert "12 images of" in verdict(report)[-1] and not proxy.held_out
    monkeypatch.setattr("sddpm.guidance.trials.noise_losses", None)  # kept, not measured again
    assert guide(asked).proxy == proxy


@pytest.mark.parametrize(
    ("correlation", "p_value", "trusted"),
    [(0.7, 0.049, True), (1.0, 0.01, True), (0.69, 0.01, False), (0.9, 0.05, False), (-0.9, 0.01, False),
     (float("nan"), 1.0, False)],
)  # fmt: skip
def test_a_proxy_is_trusted_that_ranks_alike_and_not_by_chance(correlation, p_value, trusted):
    none = Estimate(0.0, 0.0, (0.0, 0.0))
    losses = [Loss((point,), value, none, []) for point, value in ((1.0, 0.3), (0.9, 0.1), (1.1, 0.2))]
    proxy = Proxy(losses, correlation, p_value, "", True, [])
    assert proxy.trusted is trusted and proxy.best == (0.9,)


def test_kid_needs_no_more_samples_than_features(settings, sampled_at, monkeypatch, fad):
    """KID in features that need no network: the pixels."""
    from sddpm.evaluation.features.extractor import Extractor

    pixels = Extractor({"64": 64}, {"network": "pixels", "sha256": ""}, fad, lambda x: {"64": x.flatten(1) / 64.0}, 99)
    monkeypatch.setattr("sddpm.evaluation.sides.inception_extractor", lambda *arguments, **options: pixels)
    evaluation = {"metrics": ("kid",), "dim": 64, "samples": 50, "fad_weights": None}
    report = guide(settings(sampled_at(0.7), evaluation=evaluation, grid=(0.7, 1.2)))
    assert report.label == "kid-64" and report.chosen == (0.7,)


def test_the_json_holds_what_repeats_it(settings, sampled_at):
    report = guide(settings(sampled_at(0.8), proxy_images=4))
    found = json.loads(as_json(report, "sddpm guide model", True))
    assert found["command"] == "sddpm guide model" and found["stored"] and found["beats_trained"]
    assert found["chosen"] == 0.8 and found["trained"] == 1.0
    assert found["search"]["first_seeds"] == [0, 100] and found["validation"]["first_seeds"] == [FRESH, FRESH + 100]
    assert [trial["v_threshold"] for trial in found["trials"]] == [1.0, 0.8, 0.9, 1.1]
    assert len(found["trials"][0]["seed_sets"]) == 2 and len(found["proxy"]["losses"][0]["by_tenth"]) == 10
    assert found["sampling"]["steps"] == 2 and found["samples_per_seed_set"] == 100
    kept = kept_with_model(report)
    assert kept["v_threshold"] == 0.8 and kept["trained_v_threshold"] == 1.0 and kept["beats_trained"]
    assert in_words(kept).startswith("threshold 0.8: fad ")
    assert in_words({"v_threshold": 0.8}) == "threshold 0.8"
    assert in_words({"v_threshold": "0.99x"}) == "threshold 0.99x"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": (0.0,)}, "must be positive numbers, not 0"),
        ({"grid": (-1.0,)}, "must be positive numbers, not -1"),
        ({"grid": (float("nan"),)}, "must be positive numbers, not nan"),
        ({"low": float("nan"), "search": "layers", "budget": 9}, "must be positive numbers"),
        ({"low": 1.0}, "from below 1 to above"),
        ({"budget": 3}, "`budget=3` is too small: grid needs at least 4"),
        ({"search": "layers"}, "`budget`, the number of choices to try, is needed: at least 7"),
        ({"search": "layers", "budget": 6}, "`budget=6` is too small: coordinate needs at least 7"),
        ({"search": "layers-time", "budget": 12}, "coordinate needs at least 13"),
        (
            {"search": "layers", "budget": 9, "method": "bayes"},
            "unknown method 'bayes': choose one of grid",
        ),
        ({"search": "time", "method": "grid"}, "a grid searches one number"),
        ({"search": "scalar-x0-scale", "method": "grid"}, "a grid searches one number, not 2"),
        (
            {"search": "x0-scale", "method": "coordinate"},
            "`budget`, the number of choices to try, is needed: at least 3",
        ),
        ({"search": "x0-scale", "evaluation": {"sampling": SamplingSettings(2, x0_scale=1.1)}}, "leave out x0_scale"),
        ({"method": "random"}, "unknown method 'random'"),
        ({"search": "layers", "budget": 9, "groups": ("tail",)}, "unknown group of layers 'tail'"),
        ({"seed_sets": 0}, "`seed_sets` must be at least 1"),
        ({"resamples": 5}, "`resamples` must be at least 20"),
        ({"proxy_images": 1}, "`proxy_images` must be 0"),
        ({"evaluation": {"samples": 64}}, "64 samples are too few for a Fréchet distance in 64 features"),
        ({"evaluation": {"metrics": ("is",)}}, "guidance uses one metric: choose one of fid, sfid, kid, fad"),
        ({"evaluation": {"metrics": ("fad", "kid")}}, "guidance uses one metric"),
        ({"evaluation": {"source": "nowhere"}}, "no model at nowhere"),
        ({"evaluation": {"sampling": SamplingSettings(2, v_threshold=0.9)}}, "leave out v_threshold"),
        ({"evaluation": {"sampling": SamplingSettings(2, first_seed=FRESH - 10)}}, "the seeds of the search"),
        ({"evaluation": {"reference": None}}, "give `reference`"),
    ],
)
def test_what_cannot_be_is_refused_before_sampling(settings, sampled_at, sampled, tmp_path, changes, message):
    reference = sampled_at(1.0)
    sampled.clear()
    with pytest.raises(UserError, match=message):
        guide(settings(reference, **changes))
    assert sampled == []


def test_a_model_without_spikes_has_no_threshold_but_a_scale(settings, sampled_at, monkeypatch):
    monkeypatch.setattr("sddpm.guidance.run.spiking_neurons", lambda unet: {})
    with pytest.raises(UserError, match="no spiking neurons"):
        guide(settings("digits"))
    assert guide(settings(sampled_at(1.0, 0.3), search="x0-scale", grid=(0.3,))).chosen == (0.3,)


def test_a_damaged_model(settings, model):
    (model / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="damaged or incomplete"):
        guide(settings("digits"))


def test_thresholds_at_which_the_model_answers_nonsense(settings, model, pipeline):
    broken = SpikingUNet2DModel.from_pretrained(model / "unet")
    with torch.no_grad():
        broken.readout.conv.bias.fill_(float("nan"))
    broken.save_pretrained(model / "unet")
    with pytest.raises(UserError, match="NaN"):
        guide(settings("digits"))
