"""Pixels to [-1, 1] and back; flips."""

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from hypothesis import given
from hypothesis import strategies as st

from sddpm.data import random_flip, to_model, to_uint8

ALL = torch.arange(256, dtype=torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_grey_level_survives_the_round_trip(dtype):
    assert torch.equal(to_uint8(to_model(ALL, dtype)), ALL)


def test_the_ends_are_minus_one_and_one():
    x = to_model(ALL)
    assert x[0] == -1 and x[-1] == 1 and x.dtype == torch.float32
    assert torch.allclose(x.diff(), torch.tensor(2 / 255))


def test_out_of_range_is_clamped():
    x = torch.tensor([-5.0, -1.01, 1.01, 7.0, torch.inf, -torch.inf])
    assert to_uint8(x).tolist() == [0, 0, 255, 255, 255, 0]


def test_pixels_are_those_of_a_picture_of_diffusers():
    """In and out of range, from -2 to 2."""
    x = torch.linspace(-2, 2, 1001).reshape(1, 1, 7, 143)
    (picture,) = VaeImageProcessor(vae_scale_factor=1).postprocess(x, output_type="pil")
    assert np.array_equal(np.asarray(picture), to_uint8(x)[0, 0].numpy())


@given(st.floats(-1, 1))
def test_rounding_is_to_the_nearest_level(x):
    level = int(to_uint8(torch.tensor([x], dtype=torch.float64)))
    assert abs(level - (x + 1) * 127.5) <= 0.5 + 1e-9


def test_half_precision_is_rounded_in_float32():
    x = to_model(ALL).to(torch.bfloat16)
    expected = ((x.double() + 1) * 127.5).round().to(torch.uint8)
    assert (to_uint8(x).int() - expected.int()).abs().max() == 0


def test_flips_mirror_whole_images_and_follow_the_generator():
    batch = torch.arange(512 * 3 * 4 * 4, dtype=torch.int64).reshape(512, 3, 4, 4)
    out = random_flip(batch, torch.Generator().manual_seed(3))
    mirrored = (out == batch.flip(-1)).flatten(1).all(1)
    same = (out == batch).flatten(1).all(1)
    assert torch.equal(mirrored, ~same)
    assert 200 < int(mirrored.sum()) < 312  # binomial(512, 1/2), five standard deviations
    assert torch.equal(out, random_flip(batch, torch.Generator().manual_seed(3)))
    assert not torch.equal(out, random_flip(batch, torch.Generator().manual_seed(4)))


def test_flip_probability_zero_and_one():
    batch = torch.rand(8, 1, 2, 3)
    assert torch.equal(random_flip(batch, probability=0.0), batch)
    assert torch.equal(random_flip(batch, probability=1.0), batch.flip(-1))
