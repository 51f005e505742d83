"""Exact mode in float32: no layer errs more than in float32, and nothing depends on batch size or threads."""

import pytest
import torch

from sddpm.conversion import from_reference
from sddpm.inference import compile_model
from tests.helpers.layer_by_layer import assert_exact

CASES = ["sddpm_rgb16_T4", "sddpm_grey32_T8", "sdm_tsm_rgb16_T4"]


def test_every_variant(variant):
    config = variant.config
    x = torch.randn(3, config["in_channels"], config["sample_size"], config["sample_size"])
    assert_exact(variant, x, 700)
    variant.set_v_threshold(0.9)
    assert_exact(variant, x, 3)


@pytest.mark.parametrize("name", CASES)
def test_the_reference_s_vectors(vectors_dir, name):
    case = torch.load(vectors_dir / f"{name}.case.pt", weights_only=True)
    T, size = case["config"]["timestep"], case["config"]["size"]
    model = from_reference(vectors_dir / f"{name}.ckpt.pt", T=T, sample_size=size).model.double()
    for step in case["t"].unique().tolist():
        assert_exact(model, case["x"][case["t"] == step], step)


@torch.no_grad()
def test_the_same_bits_at_any_batch_size(variant):
    config = variant.float().config
    x = torch.randn(7, config["in_channels"], config["sample_size"], config["sample_size"])
    compiled = compile_model(variant)
    together = compiled(x, 321).sample
    for size in (1, 2, 3):
        parts = [compiled(part, 321).sample for part in x.split(size)]
        assert torch.equal(torch.cat(parts), together)


@torch.no_grad()
def test_the_same_bits_at_any_number_of_threads(variant):
    config = variant.float().config
    x = torch.randn(7, config["in_channels"], config["sample_size"], config["sample_size"])
    alone = compile_model(variant)(x, 321).sample
    torch.set_num_threads(2)
    try:
        assert torch.equal(compile_model(variant)(x, 321).sample, alone)
    finally:
        torch.set_num_threads(1)
