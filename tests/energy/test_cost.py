"""Cost models: the published numbers, energies by hand, and files that cannot be."""

from dataclasses import replace

import pytest
import yaml

from sddpm.energy.cost import CostModel, cost_model_names, energy_of, load_cost_model
from sddpm.energy.counts import NeuronCount, SynapticCount, merge
from sddpm.energy.parts import PARTS, Part, Picojoule, Strict
from sddpm.errors import UserError

SPIKING = SynapticCount(
    name="conv", kind="conv", shape=(1, 1, 1), parameters=1, macs=100, synapses=90, inputs=10, images=(2, 2),
    active=(5, 7), sops=(30, 40), multiplications=(0, 0), binary=True,
)  # fmt: skip
REAL = replace(SPIKING, name="real", binary=False, sops=(0, 0), multiplications=(180, 180))
NEURONS = NeuronCount(
    name="neuron", shape=(1, 1, 1), parameters=1, neurons=10, images=(2, 2), fired=(5, 7), binary=True
)
OWN = {"name": "mine", "description": "d", "source": "s", "mac_pj": 5, "ac_pj": 1, "update_pj": 0.5, "leak_pj": 2,
       "memory": {"pj_per_bit": 0.1, "bits_per_mac": 8, "bits_per_ac": 4, "bits_per_update": 2}}  # fmt: skip


def test_the_published_model():
    """4.6 and 0.9 pJ: Horowitz (2014), float32 in 45 nm; a MAC is a multiplication of 3.7 and an addition of 0.9."""
    cost = load_cost_model("45nm")
    assert (cost.mac_pj, cost.ac_pj, cost.update_pj, cost.leak_pj, cost.memory) == (4.6, 0.9, 0, 0, None)
    assert cost.mac_pj == pytest.approx(3.7 + 0.9)


# Horowitz (2014), fig. 1.1.9, in pJ: (multiplication, addition); the addition of int8 is of its sums in 32 bits.
FLOAT32, FLOAT16, INT8 = (3.7, 0.9), (1.1, 0.4), (0.2, 0.1)
INT32_MULTIPLICATION = 3.1
CACHE_8_KIB = 10 / 64  # pJ per bit


@pytest.mark.parametrize(
    ("name", "numbers", "leak", "words"),
    [
        ("45nm-fp16", FLOAT16, 1.1, None),
        ("45nm-int8", INT8, INT32_MULTIPLICATION, None),
        ("45nm-memory", FLOAT32, 3.7, (2, 3, 2)),
    ],
)
def test_the_others_add_up_from_horowitzs_table(name, numbers, leak, words):
    """An update adds and compares; a leak multiplies. Words of 32 bits: a weight and an input a MAC, a weight and a
    membrane read and written an AC, a membrane read and written an update (Lemaire et al., 2022)."""
    cost, (multiplication, addition) = load_cost_model(name), numbers
    found = (cost.mac_pj, cost.ac_pj, cost.update_pj, cost.leak_pj)
    assert found == pytest.approx((multiplication + addition, addition, 2 * addition, leak))
    if words is None:
        assert cost.memory is None
    else:
        assert cost.memory is not None and cost.memory.pj_per_bit == CACHE_8_KIB
        bits = (cost.memory.bits_per_mac, cost.memory.bits_per_ac, cost.memory.bits_per_update)
        assert bits == tuple(32 * word for word in words)


def test_every_model_names_its_source():
    assert cost_model_names()[0] == "45nm" and len(cost_model_names()) == 4
    for name in cost_model_names():
        cost = load_cost_model(name)
        assert cost.name == name and "Horowitz" in cost.source and cost.description


def test_energy_by_hand():
    cost = CostModel.model_validate(OWN)
    energy = energy_of([SPIKING, REAL, NEURONS, replace(NEURONS, leaks=1)], cost)
    updates = 2 * 10 * 4
    assert energy.ac == 70 * 1
    assert energy.mac == 90 * 4 * 5
    assert energy.neurons == pytest.approx(updates * 0.5 + updates * 2 / 2)
    assert energy.memory == pytest.approx(0.1 * (70 * 4 + 360 * 8 + updates * 2))
    assert energy.total == pytest.approx(energy.ac + energy.mac + energy.neurons + energy.memory)
    assert (energy / 2).total == pytest.approx(energy.total / 2)
    assert (energy + energy).memory == pytest.approx(2 * energy.memory)


def test_counts_of_evaluations_of_unequal_length_are_added_step_by_step():
    """With early exit one evaluation may take two time steps and another three."""
    longer = replace(SPIKING, images=(2, 2, 1), active=(1, 2, 3), sops=(10, 20, 5), multiplications=(0, 0, 8))
    for counts in ([SPIKING, longer], [longer, SPIKING]):
        both = merge(counts)
        assert (both.images, both.active) == ((4, 4, 1), (6, 9, 3))
        assert (both.sops, both.multiplications, both.binary) == ((40, 60, 5), (0, 0, 8), True)
    assert not merge([SPIKING, replace(longer, binary=False)]).binary
    neurons = merge([NEURONS, replace(NEURONS, images=(2, 2, 1), fired=(1, 2, 3))])
    assert (neurons.images, neurons.fired, neurons.updates) == ((4, 4, 1), (6, 9, 3), 90)


def test_ones_own_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(OWN))
    assert load_cost_model(path) == CostModel.model_validate(OWN)
    path.write_text(yaml.safe_dump(OWN | {"memory": None}))
    assert energy_of([REAL], load_cost_model(str(path))).memory == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({k: v for k, v in OWN.items() if k != "ac_pj"}, "the key ac_pj is missing"),
        (OWN | {"mac_pj": -1}, "mac_pj = -1 should be greater than or equal to 0"),
        (OWN | {"mac_pj": "4.6"}, "mac_pj = '4.6' should be a number"),
        (OWN | {"mac_pj": float("nan")}, "mac_pj = nan should be a finite number"),
        (OWN | {"mac_pj": True}, "mac_pj = True should be a number"),
        (OWN | {"mac": 1}, "unknown key mac; the keys are name"),
        (OWN | {"memory": {"pj_per_bit": 1}}, "the key memory.bits_per_mac is missing"),
        (OWN | {"memory": OWN["memory"] | {"pj_per_bit": -2}}, r"memory.pj_per_bit = -2 should be"),
        ([1, 2], "a cost model has the keys name"),
        ("{", "not valid YAML"),
    ],
)
def test_files_that_cannot_be(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    with pytest.raises(UserError, match=message) as error:
        load_cost_model(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_names_that_are_none(tmp_path):
    with pytest.raises(UserError, match="no cost model '45mn': did you mean 45nm"):
        load_cost_model("45mn")
    with pytest.raises(UserError, match="the cost models are 45nm, 45nm-fp16"):
        load_cost_model("quantum")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot read"):
        load_cost_model(tmp_path / "binary.yaml")


def test_a_part_from_outside(tmp_path, monkeypatch):
    """Communication over a network on a chip: a spike travels so many hops. One entry; cost models may have a section
    for it, and then energies, tables and figures do."""

    class Hops(Strict):
        pj_per_hop: Picojoule
        hops: Picojoule

    def energy(layer, cost):
        section = cost.travel
        return 0.0 if section is None else sum(getattr(layer, "fired", ())) * section.hops * section.pj_per_hop

    part = Part("travel", "#2a9d55", energy, lambda cost: "by hops" if cost.travel else "", Hops)
    monkeypatch.setitem(PARTS, "travel", part)
    path = tmp_path / "noc.yaml"
    path.write_text(yaml.safe_dump(OWN | {"travel": {"pj_per_hop": 0.25, "hops": 4}}))
    cost = load_cost_model(path)
    found = energy_of([SPIKING, NEURONS], cost)
    assert found.travel == (5 + 7) * 4 * 0.25
    plain = energy_of([SPIKING, NEURONS], load_cost_model("45nm"))
    assert plain.travel == 0 and found.total == pytest.approx(
        found.mac + found.ac + found.neurons + found.memory + found.travel
    )
    path.write_text(yaml.safe_dump(OWN | {"travel": {"hops": 4}}))
    with pytest.raises(UserError, match=r"the key travel\.pj_per_hop is missing"):
        load_cost_model(path)
    monkeypatch.delitem(PARTS, "travel")
    with pytest.raises(UserError, match="unknown key travel"):
        load_cost_model(path)
