"""Points of the search and the thresholds they stand for."""

import pytest

from sddpm.errors import UserError
from sddpm.guidance.space import GROUPS, make_space
from sddpm.models import SpikingUNet2DModel
from sddpm.models.thresholds import resolve_thresholds
from sddpm.pipelines.threshold_guidance import StagedThresholds

LAYERS = ("encoder", "middle", "decoder")
TRAINED = dict.fromkeys(("encoder.neuron", "down.0.n1", "middle.0.n1", "up.0.n1", "up.1.n1"), 1.0)


def space(search, trained=TRAINED, groups=LAYERS, boundary=None):
    return make_space(trained, search, groups, boundary, 1000)


@pytest.mark.parametrize("pure", [False, True])
def test_the_named_groups_have_every_layer_of_the_network_once(pure):
    model = SpikingUNet2DModel(sample_size=8, base_channels=8, channel_mult=(1, 2), num_res_blocks=1, T=2, pure=pure)
    assert model.config["pure"] is pure
    names = list(model.neurons())
    patterns = [p for patterns in GROUPS.values() for p in patterns]
    hits = [name for p in patterns for name in names if name.startswith(p.removesuffix("*"))]
    assert sorted(hits) == sorted(names)


def test_one_number():
    one = space("scalar")
    assert one.axes == ["threshold"] and one.origin == (1.0,)
    assert one.thresholds((0.998,)) == 0.998
    assert one.describe((0.998,)) == "0.998"


def test_groups_of_layers():
    three = space("layers")
    assert three.axes == ["encoder", "middle", "decoder"]
    found = three.thresholds((0.9, 1.0, 1.1))
    assert resolve_thresholds(TRAINED, found) == {
        "encoder.neuron": 0.9,
        "down.0.n1": 0.9,
        "middle.0.n1": 1.0,
        "up.0.n1": 1.1,
        "up.1.n1": 1.1,
    }
    # Equal numbers are the same choice as one number, and so the same samples.
    assert three.thresholds((0.9, 0.9, 0.9)) == 0.9
    assert three.describe((0.9, 1.0, 1.1)) == "encoder 0.9, middle 1, decoder 1.1"


def test_patterns_leave_other_layers_alone():
    found = space("layers", groups=("up.0.*",)).thresholds((0.5,))
    assert found == {"up.0.n1": 0.5} or found == {"up.0.*": 0.5}


def test_parts_of_the_denoising():
    two = space("time", boundary=300)
    assert two.axes == ["early", "late"]
    assert two.thresholds((0.9, 0.9)) == 0.9
    staged = two.thresholds((0.9, 1.1))
    assert isinstance(staged, StagedThresholds)
    assert [staged(0, t) for t in (999, 300, 299, 0)] == [0.9, 0.9, 1.1, 1.1]
    assert space("time").boundary == 500


def test_both():
    six = space("layers-time")
    assert six.axes[0] == "encoder early" and six.axes[-1] == "decoder late" and len(six.origin) == 6
    staged = six.thresholds((0.9, 1.0, 1.0, 1.0, 1.0, 1.2))
    assert resolve_thresholds(TRAINED, staged(0, 999))["down.0.n1"] == 0.9
    assert resolve_thresholds(TRAINED, staged(0, 0))["up.1.n1"] == 1.2
    assert resolve_thresholds(TRAINED, staged(0, 0))["down.0.n1"] == 1.0


def test_a_scale():
    scale = space("x0-scale", trained={})
    assert scale.axes == ["x0_scale"] and scale.origin == (1.0,)
    assert scale.thresholds((1.02,)) is None and scale.x0_scale((1.02,)) == 1.02
    assert scale.describe((1.02,)) == "x0_scale 1.02"
    both = space("scalar-x0-scale", dict.fromkeys(TRAINED, 0.5))
    assert both.axes == ["threshold", "x0_scale"] and both.origin == (1.0, 1.0)
    assert both.thresholds((0.9, 1.02)) == 0.45 and both.x0_scale((0.9, 1.02)) == 1.02
    assert both.describe((0.9, 1.02)) == "threshold 0.45, x0_scale 1.02"
    assert space("scalar").x0_scale((0.9,)) is None


def test_multiples_of_what_was_trained():
    mixed = {"encoder.neuron": 0.5, "middle.0.n1": 2.0, "up.0.n1": 1.0}
    assert space("scalar", mixed).thresholds((1.1,)) == {
        "encoder.neuron": 0.55,
        "middle.0.n1": 2.2,
        "up.0.n1": 1.1,
    }
    assert space("scalar", mixed).describe((1.1,)) == "1.1 x trained"
    half = space("scalar", dict.fromkeys(TRAINED, 0.5))
    assert half.thresholds((1.1,)) == 0.55 and half.describe((1.1,)) == "0.55"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"search": "scalar", "trained": {}}, "no spiking neurons"),
        ({"search": "all"}, "unknown search 'all'"),
        ({"search": "layers", "groups": ("head",)}, "unknown group of layers 'head'"),
        ({"search": "layers", "groups": ()}, "no group of layers"),
        ({"search": "layers", "groups": ("decoder", "up.1.*")}, "both have the layer up.1.n1"),
        ({"search": "time", "boundary": 1000}, "from 1 to 999, not 1000"),
    ],
)
def test_what_cannot_be(arguments, message):
    with pytest.raises(UserError, match=message):
        space(**arguments)
