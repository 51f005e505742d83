"""The measurement of CIFAR-10 from end to end, at its smallest: tiny runs, two evaluations, 64 features."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from sddpm.training import load_config, train

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
SMALL = ["model.base_channels=8", "model.channel_mult=[1]", "model.num_classes=10", "diffusion.num_train_timesteps=20"]
QUICK = ["train.batch_size=4", "train.steps=2", "train.sample_every=0", "data.limit=64"]


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import cifar10_measure

    return cifar10_measure


def test_summary_holds_what_was_asked_for_and_no_more(measure):
    scores = {"fid768": [3.0, 2.0, 4.0], "kid768": [0.1, 0.0, 0.2], "precision": [0.5, 0.4, 0.6]}
    details = {"energy": {}, "twin": scores | {"images": 64, "core_hours": 1.5, "solver": "ddim"}}
    asked = {"fid768": [3.0, 2.0, 4.0], "kid768": [0.1, 0.0, 0.2], "images": 64, "core_hours": 1.5}
    assert measure.summary(details, 768) == {"twin": asked}
    assert measure.summary(details, 64) == {}  # measured before --dim was changed


def test_energy_is_that_of_the_sampler_whose_quality_is_measured(measure, monkeypatch, tmp_path):
    import cifar10_tasks as tasks

    called = []
    found = {"evaluations_per_sample": 20, "firing_rate": 0.2, "energy_pj": {}, "energy_per_sample_pj": {}}
    found |= {"protocol": {"dim": 768}, "metrics": {}, "near_copies": None}

    def kept_json(kept, option, *arguments):
        called.append([str(word) for word in arguments])
        return found

    monkeypatch.setattr(tasks, "kept_json", kept_json)
    bench, choice = tasks.Bench(*(tmp_path,) * 5), tasks.Choice("unipc", 1.01, 1.7)
    tasks.quality(bench, "twin", tmp_path, choice, 70)
    tasks.energy(bench, "twin", tmp_path, choice)
    for words in called:
        pairs = {" ".join(pair) for pair in pairwise(words)}
        assert {"--solver unipc", "--x0-scale 1.01", "--steps 20", "--noise-clip 1.7"} <= pairs
    assert [words[0] for words in called] == ["evaluate", "energy"]


def test_scale_is_chosen_for_the_best_solver_and_noise(measure, monkeypatch, tmp_path):
    import cifar10_tasks as tasks

    def kid(words):
        options = dict(pairwise(words))
        value = {"dpm++": 3.0, "unipc": 2.5, "sde-dpm++": 2.4}[options["--solver"]]
        value -= 1.0 * ("--noise-clip" in options) + 0.1 * (options["--x0-scale"] == 1.01)
        return {"metrics": {"kid": {"value": value}}}

    monkeypatch.setattr(tasks, "kept_json", lambda kept, option, *words: kid(words))
    choice, tried = tasks.choose(tasks.Bench(*(tmp_path,) * 5), "twin", tmp_path)
    assert choice == tasks.Choice("unipc", 1.01, 1.7)
    assert min(tried, key=tried.__getitem__) == "unipc-1.01-clip-1.7" and len(tried) == 7


@pytest.mark.slow
def test_tiny_runs_are_measured_once(measure, monkeypatch, shared_dir, tmp_path, sddpm):
    """All tasks on leg A; the others are not trained, or (the twin) not to their end, and are left out."""
    import cifar10_classifier
    import cifar10_tasks as tasks

    data, runs = shared_dir / "data", tmp_path / "runs"
    where = f"data.path={json.dumps(str(data / 'cifar10'))}"
    for stage, kind in (("leg-a-quantized", "quantized"), ("leg-a", "spiking"), ("twin", "ann")):
        config = load_config("cifar10_small", [*SMALL, *QUICK, where, f"model.kind={kind}"])
        train(config, runs / stage, progress=False)
        (runs / f"{stage}.cpu.d").mkdir()
        (runs / f"{stage}.cpu.d" / "100-7").write_text("1800.5\n")
    text = (runs / "twin" / "config.yaml").read_text()
    (runs / "twin" / "config.yaml").write_text(text.replace("\n  steps: 2\n", "\n  steps: 3\n"))
    classifier = tmp_path / "work" / "classifier"
    network = cifar10_classifier.train(*cifar10_classifier.opened(str(data / "cifar10"), "test", 64), classifier, 1, 4)
    torch.save({"width": 4, "weights": network.state_dict()}, classifier / "classifier.pt")
    (classifier / "classifier.json").write_text('{"accuracy": 0.5}')

    called = []

    def run(words, check):
        called.append(words)
        code, _, err = sddpm(*words[3:])
        assert code == 0, err

    monkeypatch.setattr(tasks.subprocess, "run", run)
    monkeypatch.setattr(tasks, "SAMPLERS", (tasks.Choice("ddim"), tasks.Choice("dpm++", noise_clip=1.7)))
    monkeypatch.setattr(tasks, "SCALES", (1.01,))
    monkeypatch.setattr(tasks, "GUIDANCE_SCALES", (1.0, 2.0))
    counts = {"--many": 70, "--few": 70, "--search": 70, "--references": 70, "--steps": 2, "--dim": 64, "--moments": 4}
    folders = [str(folder) for folder in (data, runs, tmp_path / "work", tmp_path / "results")]
    whole = ["measure", *folders, *(str(word) for pair in counts.items() for word in pair)]

    def measured():
        monkeypatch.setattr("sys.argv", whole)
        measure.main()
        names = ("cifar10.json", "cifar10_details.json")
        return [json.loads((tmp_path / "results" / name).read_text()) for name in names]

    summary, details = measured()
    assert list(summary) == ["spiking"] and summary["spiking"].keys() == {"fid64", "kid64", "images", "core_hours"}
    assert (summary["spiking"]["images"], summary["spiking"]["core_hours"]) == (16, 1.0)
    low, high = summary["spiking"]["fid64"][1:]
    assert low < summary["spiking"]["fid64"][0] < high
    assert details["spiking"].keys() >= {"precision", "recall", "near_copies", "solver", "x0_scale", "tried"}
    assert len(details["spiking"]["tried"]) == 3 and details["energy"]["spiking"]["evaluations"] == 2
    assert details["energy"]["spiking"]["pj_a_picture"]["45nm"] == pytest.approx(
        2 * details["energy"]["spiking"]["pj_an_evaluation"]["45nm"]
    )
    assert sorted(trial["multiple"] for trial in details["threshold_guidance"]["spiking"]["trials"]) == [
        0.98,
        0.99,
        1,
        1.01,
    ]
    assert details["class_guidance"]["scales"].keys() == {"1", "2"} and details["tsm"] == {}
    shares = details["class_guidance"]["scales"]["2"]
    assert shares["of_real_images"] == pytest.approx(2 * shares["recognised"])
    assert {"ddim-1", "ddim-2", "analytic-dpm-2"} <= details["analytic_dpm"].keys()
    count = len(called)
    assert measured() == [summary, details] and len(called) == count
    whole[whole.index("--steps") + 1] = "1"
    whole += ["--tasks", "quality", "energy", "class-guidance"]
    _, details = measured()
    assert details["energy"]["spiking"]["evaluations"] == 1 and len(list((tmp_path / "work").glob("*.npz"))) == 4
    drawn = [words[4] for words in called[count:] if words[4].endswith(".npz")]
    assert len(drawn) == 2 and all("-1-" in name for name in drawn)
