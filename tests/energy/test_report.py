"""The account in words, JSON, CSV and HTML says what the ledger holds."""

import csv
import html
import io
import json
import re
from pathlib import Path

import pytest
import torch

from sddpm.diffusion.solvers import make_scheduler
from sddpm.energy.account import Account
from sddpm.energy.activity import recording
from sddpm.energy.cost import CostModel, cost_model_names, energy_of, load_cost_model
from sddpm.energy.export import as_csv, as_json
from sddpm.energy.html import as_html
from sddpm.energy.ledger import firing_rate
from sddpm.energy.measure import measure_network, measure_sampling
from sddpm.energy.pictures import pictures
from sddpm.energy.report import NOT_COUNTED, as_text, count, joules
from sddpm.energy.twin import ann_twin
from sddpm.pipelines import SpikingDiffusionPipeline

COSTS = [load_cost_model(name) for name in cost_model_names()]


@pytest.fixture(scope="module")
def account(make_model):
    pipeline = SpikingDiffusionPipeline(make_model(), make_scheduler("ddim", num_train_timesteps=100))
    with recording(pipeline.unet) as activity:
        ledger = measure_sampling(pipeline, range(2), num_inference_steps=3, title="runs/<mine>")
    twin = measure_network(ann_twin(pipeline.unet.config), torch.randn(1, 1, 8, 8), 50, "ANN twin")
    return Account(ledger, COSTS, twin, activity)


def test_numbers_for_people():
    assert [joules(x) for x in (0.5, 1234, 1.5e6, 29.21e9, 2e12)] == ["0.5 pJ", "1.234 nJ", "1.5 uJ", "29.21 mJ", "2 J"]
    assert [count(x) for x in (7, 4096, 78.74e6, 6.35e9)] == ["7", "4.096 k", "78.74 M", "6.35 G"]


def test_text(account):
    text = as_text(account, layers=True)
    ledger = account.ledger
    assert f"runs/<mine>: {ledger.parameters:,} parameters, T = 3; 2 samples" in text
    assert joules(ledger.per_evaluation(COSTS[0]).total) in text and joules(ledger.per_sample(COSTS[0]).total) in text
    saving = 1 - ledger.per_evaluation(COSTS[0]).total / account.twin.per_evaluation(COSTS[0]).total
    assert f"{saving:.1%}" in text
    assert f"{firing_rate(ledger.layers):.4f}" in text
    assert all(layer.name in text for layer in ledger.layers)
    assert "real-valued input" in text and "Published formula (4.6 pJ" in text
    assert max(map(len, as_text(account).splitlines())) <= 160


def test_time_steps_add_up(account):
    layers = [layer for layer in account.ledger.layers if layer.macs]
    steps = [sum(layer.sops[n] for layer in layers if len(layer.sops) > n) for n in range(3)]
    assert sum(steps) == sum(layer.ac for layer in layers)
    line = next(line for line in as_text(account).splitlines() if line.startswith("accumulates  "))
    assert line.split()[1:] == " ".join(count(n / 6) for n in steps).split()


def test_json(account):
    content = json.loads(as_json(account, "sddpm energy"))
    ledger = account.ledger
    assert content["evaluations_per_sample"] == 3 and content["T"] == 3 and content["images"] == 2
    for cost in COSTS:
        parts = content["energy_pj"][cost.name]
        assert sum(parts.values()) == pytest.approx(ledger.per_evaluation(cost).total)
        assert sum(layer["energy_pj"][cost.name] for layer in content["layers"]) == pytest.approx(sum(parts.values()))
        once = [step["energy_pj"][cost.name] for step in content["evaluations"]]
        assert sum(once) == pytest.approx(content["energy_per_sample_pj"][cost.name])
    honest = sum(difference["honest"] for difference in content["differences"])
    assert honest == pytest.approx(sum(content["energy_pj"]["45nm"].values()))
    assert content["cost_models"][0]["mac_pj"] == 4.6
    twin = content["ann_twin"]
    assert twin["operations"]["ac"] == 0
    for cost in COSTS:  # a sample of the twin takes as many evaluations
        name = cost.name
        assert twin["energy_per_sample_pj"][name] == pytest.approx(3 * sum(twin["energy_pj"][name].values()))
        saving = 1 - content["energy_per_sample_pj"][name] / twin["energy_per_sample_pj"][name]
        assert saving == pytest.approx(content["saving"][name])
    neuron = content["neurons"]["encoder.neuron"]
    assert neuron["channels"] == 8 and len(neuron["channel_rates"]) == 8
    assert len(neuron["membrane_histogram"]) == len(content["membrane_edges"]) + 1


def test_csv(account):
    rows = list(csv.DictReader(io.StringIO(as_csv(account))))
    ledger = account.ledger
    expected = sum(len(layer.images) for evaluation in ledger.evaluations for layer in evaluation.layers)
    assert len(rows) == expected
    for cost in COSTS:
        total = sum(float(row[f"energy_{cost.name}_pj"]) for row in rows)
        assert total == pytest.approx(ledger.per_sample(cost).total, rel=1e-6)
    last = [row for row in rows if row["evaluation"] == "2" and row["layer"] == "up.1.blocks.0.conv1"]
    assert [row["snn_step"] for row in last] == ["1", "2", "3"] and {row["t"] for row in last} == {"32"}
    layer = next(layer for layer in ledger.evaluations[2].layers if layer.name == "up.1.blocks.0.conv1")
    assert [float(row["ac"]) for row in last] == [n / 2 for n in layer.sops]


def test_html_needs_nothing_else(account):
    page = as_html(account, "sddpm energy 'a <b>'")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources and all(source.startswith(("data:image/", "#")) for source in sources)
    assert "<script" not in page and "@import" not in page and "url(" not in re.sub(r"base64,[\w+/=]*", "", page)
    anchors = set(re.findall(r'id="([^"]*)"', page))
    assert {source[1:] for source in sources if source.startswith("#")} == anchors
    assert "runs/&lt;mine&gt;" in page and "<mine>" not in page and "a &lt;b&gt;" in page
    assert page.count("<img") == len(pictures(account))
    for cost in COSTS:
        assert cost.source.split(",")[0] in html.unescape(page)


def test_pictures(account):
    drawn = {picture.name: picture for picture in pictures(account)}
    assert {"relative", "layers", "diffusion-steps", "rates", "rates-diffusion", "channels", "membranes"} <= set(drawn)
    assert sum(name.startswith("raster-") for name in drawn) == 3
    bars = sum(patch.get_width() for patch in drawn["layers"].figure.axes[0].patches)
    cost, ledger = COSTS[0], account.ledger
    unit = {"energy in nJ": 1e3, "energy in \N{GREEK SMALL LETTER MU}J": 1e6}[
        drawn["layers"].figure.axes[0].get_xlabel()
    ]
    assert bars * unit == pytest.approx(energy_of(ledger.layers, cost).total / ledger.network_runs)


def test_an_ann_is_reported_as_such(make_model):
    twin = ann_twin(make_model().config)
    account = Account(measure_network(twin, torch.randn(1, 1, 8, 8), 50, "twin"), COSTS)
    text = as_text(account)
    assert "no spikes: an ANN" in text and "SNN time step" not in text and "Published formula" not in text
    content = json.loads(as_json(account, ""))
    assert content["spiking"] is False and content["ann_twin"] is None and "differences" not in content
    assert "no spikes: an ANN" in as_html(account, "")


def test_a_cost_model_without_costs_has_no_saving(account):
    free = CostModel(
        name="free", description="no energy", source="none", mac_pj=0, ac_pj=0, update_pj=0, leak_pj=0, memory=None
    )
    costs = Account(account.ledger, [free, COSTS[0]], account.twin, account.activity)
    assert costs.saving(free) is None and costs.saving(COSTS[0]) == account.saving(COSTS[0])
    text = as_text(costs)
    assert "counted operations: 0 pJ; largest differences:" in text
    row = next(line for line in text.splitlines() if line.startswith("free "))
    assert row.endswith("0 pJ") and row.count("0 pJ") == 4
    assert json.loads(as_json(costs, ""))["saving"]["free"] is None
    assert "free" in as_csv(costs).splitlines()[0] and "free" in as_html(costs, "")
    drawn = {picture.name: picture for picture in pictures(costs)}
    (axes,) = drawn["relative"].figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [COSTS[0].name]
    assert "relative" not in {picture.name for picture in pictures(Account(account.ledger, [free], account.twin))}


def test_what_is_not_counted_is_listed_in_the_documents():
    (listed,) = re.findall(r"Not counted: (.*)\.$", NOT_COUNTED)
    document = (Path(__file__).parents[2] / "docs" / "how-to" / "energy.md").read_text()
    (written,) = re.findall(r"\*\*Not counted\*\*: ([^.]*)\.", document)
    assert "scaling by TSM (one multiplication an output and time step)" in listed
    for part in listed.replace("SiLU if", "SiLU where").replace("spike routing", "the routing of spikes").split(", "):
        assert part in " ".join(written.split())
