"""What a picture costs while it is made: the numbers of `sddpm energy`, evaluation by evaluation."""

import re

import pytest
import torch

from sddpm.app.consumption import consume
from sddpm.app.settings import Settings
from sddpm.app.tabs import energy
from sddpm.data import to_uint8
from sddpm.energy import CostModel, cost_model_names, load_cost_model, measure_sampling
from sddpm.energy.measure import deployed
from sddpm.energy.twin import twin_ledger
from sddpm.errors import UserError
from tests.helpers.small_pipeline import pipeline_of

COSTS = [load_cost_model(name) for name in cost_model_names()]


@pytest.mark.parametrize(("config", "said"), [
    ({}, {"steps": 3}),
    ({"pure": True, "T": 4}, {"steps": 2, "solver": "dpm++", "thresholds": "0.9x"}),
    ({"num_classes": 2}, {"steps": 2, "label": "1", "guidance_scale": 3.0}),
    ({"T": 4, "readout_decay": 0.5}, {"steps": 4, "exit_tolerance": 0.9}),
])  # fmt: skip
def test_grows_to_what_the_ledger_says(config, said):
    pipeline = pipeline_of(**config)
    seen = []
    settings = Settings("tiny", seeds="3", **said)
    made = consume(pipeline, settings, seen.append)
    ledger = measure_sampling(
        deployed(pipeline), [3], class_labels=settings.wanted(pipeline).labels, options=settings.options
    )
    assert [len(each.evaluations) for each in seen] == list(range(1, made.total + 1))
    assert made.snn_steps == pytest.approx(ledger.snn_steps)
    for cost in COSTS:
        growth, steps = made.growth(cost), made.by_snn_step(cost)
        assert growth == sorted(growth) and growth[:2] == seen[1].growth(cost)
        assert growth[-1] == pytest.approx(ledger.per_sample(cost).total)
        assert len(steps) == made.T and steps == sorted(steps) and steps[-1] == pytest.approx(growth[-1])
        twin = twin_ledger(pipeline).per_evaluation(cost).total * ledger.evaluations_per_sample
        assert made.twin_growth(cost)[-1] == pytest.approx(twin)
        assert made.saving(cost) == pytest.approx(1 - growth[-1] / twin)


def test_the_picture_is_that_of_the_seed():
    pipeline, expected = pipeline_of(), []
    made = consume(pipeline, Settings("tiny", seeds="3", steps=3))
    pipeline(seeds=[3], num_inference_steps=3, engine="eager", progress=False, callback=expected.append)
    assert torch.equal(made.picture, to_uint8(expected[-1].x_prev[0]))


def test_the_numbers_of_the_command(sddpm, tmp_path):
    pipeline = pipeline_of()
    pipeline.save_pretrained(tmp_path / "tiny")
    printed = sddpm("energy", "tiny", "--seeds", "3", "--steps", 3)[1]
    made = consume(pipeline, Settings("tiny", seeds="3", steps=3))
    cells = re.split(r" {2,}", next(line for line in printed.splitlines() if line.startswith("45nm ")))
    number, unit = cells[2].split()
    assert float(number) * {"nJ": 1e3, "uJ": 1e6}[unit] == pytest.approx(
        made.growth(load_cost_model("45nm"))[-1], rel=1e-3
    )
    assert cells[-1] == f"{made.saving(load_cost_model('45nm')):.1%}"


def test_a_cost_model_without_costs(monkeypatch):
    free = CostModel(
        name="free", description="no energy", source="none", mac_pj=0, ac_pj=0, update_pj=0, leak_pj=0, memory=None
    )
    monkeypatch.setattr(energy, "load_cost_model", {"free": free, "45nm": COSTS[0]}.__getitem__)
    monkeypatch.setattr(energy, "cost_model_names", lambda: ["free", "45nm"])
    made = consume(pipeline_of(), Settings("tiny", seeds="3", steps=1))
    assert made.saving(free) is None
    free_of_charge, charged = energy.show([made], "free"), energy.show([made], "45nm")
    assert "Spikes cost" in charged and "Spikes cost" not in free_of_charge
    assert f"45nm: {1 - made.saving(COSTS[0]):.0%}" in free_of_charge and "free: " not in charged


def test_more_than_one_seed():
    with pytest.raises(UserError, match="give one seed"):
        consume(pipeline_of(), Settings("tiny", seeds="0,1"))
