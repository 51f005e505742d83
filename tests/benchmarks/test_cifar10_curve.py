"""The curve of quality against images: which checkpoints are measured, and the smallest measurement from end to end."""

import json
import sys
from pathlib import Path

import pytest

from sddpm.training import load_config, train

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture
def curve(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import cifar10_curve

    return cifar10_curve


def test_a_checkpoint_every_two_hours_and_the_last_of_each_stage(curve, tmp_path):
    def keep(stage, every_hours, count):
        for i in range(1, count + 1):
            folder = tmp_path / stage / "checkpoints" / f"step-{100 * i:07d}"
            folder.mkdir(parents=True)
            state = {"step": 100 * i, "seconds": 3600 * every_hours * i, "config": {"train": {"batch_size": 64}}}
            (folder / "state.json").write_text(json.dumps(state))

    keep("leg-a-quantized", 0.5, 9)  # to 4.5 hours
    keep("leg-a", 1.0, 2)  # to 6.5
    found = curve.points_of("spiking", tmp_path, 2.0)
    assert [(point.stage, point.images, point.hours) for point in found] == [
        ("leg-a-quantized", 400 * 64, 2.0),
        ("leg-a-quantized", 800 * 64, 4.0),
        ("leg-a-quantized", 900 * 64, 4.5),
        ("leg-a", 1100 * 64, 6.5),
    ]
    assert curve.points_of("twin", tmp_path, 2.0) == []


@pytest.mark.slow
def test_a_point_from_checkpoint_to_picture(curve, monkeypatch, shared_dir, tmp_path):
    data = shared_dir / "data"
    small = ["model.kind=quantized", "model.base_channels=8", "model.channel_mult=[1]", "model.num_classes=10"]
    quick = ["train.batch_size=4", "train.steps=2", "train.sample_every=0", "data.limit=64"]
    config = load_config("cifar10_small", [*small, *quick, f"data.path={json.dumps(str(data / 'cifar10'))}"])
    train(config, tmp_path / "runs" / "leg-a-quantized", progress=False)
    arguments = ["--samples", "80", "--references", "80", "--dim", "64"]
    monkeypatch.setattr(sys, "argv", ["curve", *map(str, (data, tmp_path / "runs", tmp_path / "results")), *arguments])
    curve.main()
    rows = json.loads((tmp_path / "results" / "cifar10_curve.json").read_text())
    assert [(row["stage"], row["images"]) for row in rows] == [("leg-a-quantized", 8)]
    for name in ("fid64", "kid64"):
        value, low, high = rows[0][name]
        assert low < value < high
    assert (tmp_path / "results" / "cifar10_curve.png").read_bytes()[1:4] == b"PNG"
    before = rows
    curve.main()  # measured already
    assert json.loads((tmp_path / "results" / "cifar10_curve.json").read_text()) == before


def test_points_of_other_features_or_references_are_measured_too(curve, monkeypatch, tmp_path):
    point = curve.Point("twin", "twin", tmp_path / "step-0000001", 64, 1.0)
    monkeypatch.setattr(curve, "points_of", lambda chain, *_: [point] if chain == "twin" else [])
    scores = [0.5, 0.4, 0.6]
    monkeypatch.setattr(curve, "measured", lambda _, args: {f"{name}{args.dim}": scores for name in curve.METRICS})
    for options in ([], ["--dim", "64"], ["--dim", "64", "--references", "80"], ["--dim", "64"]):
        monkeypatch.setattr(sys, "argv", ["curve", "data", "runs", str(tmp_path / "results"), *options])
        curve.main()
    rows = json.loads((tmp_path / "results" / "cifar10_curve.json").read_text())
    assert [(row["dim"], row["references"]) for row in rows] == [(768, None), (64, None), (64, 80)]
