"""Fan-out against cases by hand, against convolutions with ones, and against spikingjelly's counter."""

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
from torch import nn

from sddpm.energy.fanout import fan_out, reach, synapses, synaptic_operations
from sddpm.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((5, 3, 1, 1, 1), [2, 3, 3, 3, 2]),  # the border lacks a tap
        ((1, 3, 1, 1, 1), [1]),
        ((5, 1, 1, 0, 1), [1, 1, 1, 1, 1]),
        ((6, 3, 2, 1, 1), [1, 2, 1, 2, 1, 1]),  # stride 2: odd positions lie between two outputs, the last in one
        ((5, 3, 1, 0, 1), [1, 2, 3, 2, 1]),  # no padding
        ((7, 3, 1, 2, 2), [2, 2, 3, 3, 3, 2, 2]),  # dilated
        ((4, 2, 2, 0, 1), [1, 1, 1, 1]),
        ((5, 2, 2, 0, 1), [1, 1, 1, 1, 0]),  # the last position reaches nothing
    ],
)
def test_reach_by_hand(arguments, expected):
    assert reach(*arguments).tolist() == expected


CONVS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 1, "stride": 2},
    {"kernel_size": 1},
    {"kernel_size": (3, 5), "padding": (1, 0), "stride": (1, 3)},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "stride": 2},
    {"kernel_size": 3, "padding": 1, "groups": 2},
]


@pytest.mark.parametrize("options", CONVS, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_with_ones_counts_the_same(options, layout):
    """Each output of a convolution with weights 1 is the number of spikes that reached it."""
    layer = nn.Conv2d(4, 6, **options)
    generator = torch.Generator().manual_seed(0)
    flat = (torch.rand(6, 4, 9, 7, generator=generator) < 0.3).float().contiguous(memory_format=layout)
    spikes = flat.unflatten(0, (3, 2))
    outputs = F.conv2d(
        flat.double(), torch.ones_like(layer.weight).double(), None, layer.stride, layer.padding, layer.dilation,
        layer.groups,
    )  # fmt: skip
    counted = synaptic_operations(spikes, layer)
    assert counted == outputs.unflatten(0, (3, 2)).flatten(1).sum(1).long().tolist()
    full = synaptic_operations(torch.ones(1, 1, 4, 9, 7), layer)
    assert full == [synapses(layer, spikes.shape)]


@pytest.mark.parametrize("layer", [*(nn.Conv2d(4, 6, **options) for options in CONVS[:5]), nn.Linear(7, 5)], ids=str)
def test_spikingjelly_counts_the_same(layer):
    generator = torch.Generator().manual_seed(1)
    shape = (3, 2, 7) if isinstance(layer, nn.Linear) else (3, 2, 4, 9, 7)
    spikes = (torch.rand(shape, generator=generator) < 0.3).float()
    for now, counted in zip(spikes, synaptic_operations(spikes, layer), strict=True):
        counter = SynOpCounter()
        with torch.no_grad(), DispatchCounterMode([counter]):
            layer(now)
        assert counter.get_total() == counted


def test_an_upsampled_spike_is_four():
    """Nearest x2, then 3 x 3: the corner's copies reach 4, 6, 6 and 9 outputs, any other place four times 9."""
    conv = nn.Conv2d(1, 10, 3, padding=1)
    for place, expected in (((0, 0), 25), ((1, 2), 36)):
        spikes = torch.zeros(1, 1, 1, 4, 4)
        spikes[0, 0, 0, place[0], place[1]] = 1
        upsampled = F.interpolate(spikes[0], scale_factor=2, mode="nearest")[None]
        assert synaptic_operations(upsampled, conv) == [10 * expected]


def test_a_negative_spike_costs_as_much():
    layer = nn.Conv2d(3, 4, 3, padding=1)
    spikes = torch.randint(-1, 2, (2, 2, 3, 5, 5)).float()
    assert spikes.sum() < spikes.abs().sum()
    assert synaptic_operations(spikes, layer) == synaptic_operations(spikes.abs(), layer)


def test_sums_are_exact_in_half_precision():
    spikes = torch.ones(1, 64, 40, 3, 3, dtype=torch.bfloat16)  # 2560 spikes a place, beyond bfloat16's 256
    assert synaptic_operations(spikes, nn.Conv2d(40, 1, 1)) == [64 * 40 * 9]


def test_other_paddings_are_refused():
    for layer in (nn.Conv2d(1, 1, 3, padding="same"), nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")):
        with pytest.raises(UserError, match="zero padding"):
            fan_out(layer, torch.Size([1, 1, 4, 4]))
