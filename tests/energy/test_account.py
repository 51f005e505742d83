"""The account of a ledger that is written down here: every number of the report, by hand.

Two images, three evaluations e = 0, 1, 2, T = 2, so that six runs of one image lie behind each layer's total. The
first convolution sees the image once; two convolutions get the spikes of two layers of neurons.
"""

import csv
import io
import json
from dataclasses import replace

import pytest

from sddpm.energy.account import Account
from sddpm.energy.cost import CostModel
from sddpm.energy.counts import NeuronCount, SynapticCount
from sddpm.energy.export import as_csv, as_json
from sddpm.energy.ledger import Evaluation, Ledger, firing_rate
from sddpm.energy.report import (
    as_text,
    difference_lines,
    diffusion_table,
    energy_table,
    layer_table,
    operations_table,
    table,
    time_table,
)

COST = CostModel.model_validate(
    {"name": "own", "description": "d", "source": "s", "mac_pj": 5, "ac_pj": 1, "update_pj": 0.5, "leak_pj": 2,
     "memory": {"pj_per_bit": 0.1, "bits_per_mac": 8, "bits_per_ac": 4, "bits_per_update": 2}}
)  # fmt: skip
FIRST = SynapticCount(
    name="first", kind="conv", shape=(1, 2, 2), parameters=9, macs=200, synapses=180, inputs=10, images=(2,),
    active=(20,), sops=(0,), multiplications=(360,), binary=False,
)  # fmt: skip
CONV = replace(
    FIRST, name="conv", macs=100, synapses=90, images=(2, 2), sops=(0, 0), multiplications=(0, 0), binary=True
)
OUT = replace(CONV, name="out", macs=1000, inputs=40, active=(1, 3), sops=(9, 27))
LIF = NeuronCount(
    name="lif", shape=(10,), parameters=1, neurons=10, images=(2, 2), fired=(0, 0), binary=True, leaks=1
)  # fmt: skip
IF = NeuronCount(name="if", shape=(40,), parameters=1, neurons=40, images=(2, 2), fired=(1, 3), binary=True)


def evaluation(e: int) -> Evaluation:
    spikes = (4 + e, 6 + e)
    conv = replace(CONV, active=spikes, sops=(30 + e, 40 + 2 * e))
    return Evaluation(e, (99, 66, 33)[e], 2, (FIRST, replace(LIF, fired=spikes), conv, IF, OUT))


@pytest.fixture
def account():
    ledger = Ledger(
        title="made", parameters=1234, spiking=True, T=2, inputs="2 samples", solver="ddim", images=2,
        evaluations=tuple(map(evaluation, range(3))),
    )  # fmt: skip
    real = replace(FIRST, macs=400, synapses=400, images=(1,), active=(10,), multiplications=(400,))
    twin = replace(ledger, title="ANN", spiking=False, T=1, images=1, evaluations=(Evaluation(0, 50, 1, (real,)),))
    return Account(ledger, [COST], twin)


# 54.5 AC: (93 + 126) / 6 and (27 + 81) / 6. 110 by rate: 0.3 x 200 and 0.025 x 2000. 100 updates: (10 + 40) x 2.
OPERATIONS = {"dense_macs": 200 + 200 + 2000, "ac": 36.5 + 18, "ac_by_rate": 60 + 50, "mac": 180, "neuron_updates": 100}
PARTS = {"mac": 180 * 5, "ac": 54.5, "neurons": 100 * 0.5 + 20 * 2, "memory": 0.1 * (180 * 8 + 54.5 * 4 + 100 * 2)}
ONCE = 900 + 54.5 + 90 + 185.8
TWIN = 400 * 5 + 0.1 * 400 * 8
PUBLISHED = 200 * 5 + 60 + 50  # the MACs of the first convolution, the others by rate


def test_the_ledger(account):
    ledger = account.ledger
    assert ledger.network_runs == 6 and ledger.evaluations_per_sample == 3 and ledger.snn_steps == 2
    assert ledger.totals() == pytest.approx(OPERATIONS)
    assert firing_rate(ledger.layers) == pytest.approx((36 + 12) / (10 * 12 + 40 * 12))
    assert ledger.per_evaluation(COST).parts == pytest.approx(PARTS)
    assert ledger.per_sample(COST).total == pytest.approx(3 * ONCE)
    assert account.published == pytest.approx(PUBLISHED)
    assert account.saving(COST) == pytest.approx(1 - ONCE / TWIN)


def test_the_tables(account):
    ledger = account.ledger
    assert operations_table(account) == [
        ["one evaluation of one image", "this model", "ANN twin"],
        ["parameters", "1,234", "1,234"],
        ["layers with spikes as input", "2 of 3", "0 of 1"],
        ["firing rate", "0.0800", ""],
        ["dense MACs, all time steps", "2.4 k", "400"],
        ["accumulates (AC), counted", "54.5", "0"],
        ["AC by rate x T x MACs", "110", "0"],
        ["multiply-accumulates (MAC)", "180", "400"],
        ["neuron updates", "100", "0"],
    ]
    assert energy_table(account)[1] == ["own", "1.23 nJ", "3.691 nJ", "2.32 nJ", "6.96 nJ", "47.0%"]
    assert time_table(ledger)[1:] == [["firing rate", "0.0600", "0.1000"], ["accumulates", "20", "34.5"]]
    assert diffusion_table(ledger, COST) == [
        ["diffusion step", "99", "66", "33"],
        ["firing rate", "0.0700", "0.0800", "0.0900"],  # (14 + 2 e) / 200
        ["energy, own", "1.228 nJ", "1.23 nJ", "1.232 nJ"],  # 1228.2 + 2.1 e
    ]
    assert layer_table(account)[1:] == [
        ["first", "1x2x2", "200", "real", "1.0000", "", "", "180", "", "1.044 nJ"],
        ["lif", "10", "", "neurons", "0.3000", "", "", "", "20", "54 pJ"],
        ["conv", "1x2x2", "100", "spikes", "0.3000", "36.5", "60", "", "", "51.1 pJ"],
        ["if", "40", "", "neurons", "0.0250", "", "", "", "80", "56 pJ"],
        ["out", "1x2x2", "1 k", "spikes", "0.0250", "18", "50", "", "", "25.2 pJ"],
    ]
    text = as_text(account, layers=True)
    assert text.startswith("made: 1,234 parameters, T = 2; 2 samples, ddim (3 evaluations)\n")
    tables = (operations_table(account), energy_table(account), time_table(ledger), diffusion_table(ledger, COST))
    assert all(table(rows) in text for rows in (*tables, layer_table(account)))


def test_the_published_formula_and_the_counts(account):
    """1.11 nJ against 1.23 nJ, which are 10.8 % more."""
    formula, counted, *layers = difference_lines(account)
    assert formula.endswith("): 1.11 nJ per evaluation")
    assert counted == "counted operations: 1.23 nJ (+10.8%); largest differences:"
    assert [line.split()[:3] for line in layers[:5]] == [
        ["if", "+", "56"],
        ["lif", "+", "54"],
        ["first", "+", "44"],
        ["out", "-", "24.8"],
        ["conv", "-", "8.9"],
    ]


def test_json(account):
    content = json.loads(as_json(account, ""))
    assert content["operations"] == pytest.approx(OPERATIONS)
    assert content["energy_pj"]["own"] == pytest.approx(PARTS)
    assert content["energy_per_sample_pj"]["own"] == pytest.approx(3 * ONCE)
    assert content["published_formula_pj"] == pytest.approx(PUBLISHED)
    assert content["firing_rate"] == pytest.approx(0.08)
    twin = content["ann_twin"]
    assert twin["energy_pj"]["own"] == pytest.approx({"mac": 2000, "ac": 0, "neurons": 0, "memory": 320})
    assert (twin["evaluations_per_sample"], twin["energy_per_sample_pj"]["own"]) == (3, pytest.approx(3 * TWIN))
    keys = ("name", "sops", "ac", "ac_by_rate", "mac", "neuron_updates")
    assert [[layer[key] for key in keys] for layer in content["layers"]] == [
        ["first", [0], 0, 0, 180, 0],
        ["lif", [0, 0], 0, 0, 0, 20],
        ["conv", [15.5, 21], 36.5, pytest.approx(60), 0, 0],
        ["if", [0, 0], 0, 0, 0, 80],
        ["out", [4.5, 13.5], 18, pytest.approx(50), 0, 0],
    ]
    assert content["layers"][2]["rates"] == pytest.approx([15 / 60, 21 / 60])
    assert [layer["energy_pj"]["own"] for layer in content["layers"]] == pytest.approx([1044, 54, 51.1, 56, 25.2])
    steps = content["evaluations"]
    assert [step["energy_pj"]["own"] for step in steps] == pytest.approx([1228.2, 1230.3, 1232.4])
    assert [step["firing_rate"] for step in steps] == pytest.approx([0.07, 0.08, 0.09])


def test_csv(account):
    """The second time step of the second evaluation, for one image."""
    rows = {
        row["layer"]: [float(row[key]) for key in ("rate", "ac", "mac", "neuron_updates", "energy_own_pj")]
        for row in csv.DictReader(io.StringIO(as_csv(account)))
        if (row["evaluation"], row["snn_step"]) == ("1", "2")
    }
    assert rows["conv"] == pytest.approx([7 / 20, 21, 0, 0, 21 + 0.1 * 84])
    assert rows["lif"] == pytest.approx([7 / 20, 0, 0, 10, 10 * 0.5 + 10 * 2 + 0.1 * 20])


def test_time_steps_after_early_exit(account):
    """In the first evaluation both images take two time steps, in the second one of them, in the last none: means of
    2, 1.5 and 1."""
    first, second, last = account.ledger.evaluations
    exits = replace(second, layers=tuple(_images(layer, (2, 1)) for layer in second.layers))
    single = replace(last, layers=tuple(_images(layer, (2,)) for layer in last.layers))
    early = replace(account.ledger, evaluations=(first, exits, single))
    assert [each.snn_steps for each in early.evaluations] == [2, 1.5, 1]
    assert early.snn_steps == pytest.approx(1.5)
    assert "(3 evaluations), 1.5 of 2 SNN time steps on average\n" in as_text(replace(account, ledger=early))


def _images(layer, images):
    """The layer with fewer images in its time steps; the first convolution runs once anyway."""
    if layer.name == "first":
        return layer
    shorter = {name: getattr(layer, name)[: len(images)] for name in layer.per_step}
    return replace(layer, **shorter | {"images": images})
