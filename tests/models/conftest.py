"""The reference's exact outputs, and the converted models that must reproduce them."""

from pathlib import Path

import pytest
import torch

from sddpm.conversion import from_reference

CASES = ["sddpm_rgb16_T4", "sddpm_grey32_T8", "sdm_tsm_rgb16_T4"]


def load_case(folder: Path, name: str):
    """(case, fresh float64 model) of one vector."""
    case = torch.load(folder / f"{name}.case.pt", weights_only=True)
    T = case["config"]["timestep"]
    model = from_reference(folder / f"{name}.ckpt.pt", T=T, sample_size=case["config"]["size"]).model
    return case, model.double()


@pytest.fixture(params=CASES)
def case_and_model(request, vectors_dir):
    return load_case(vectors_dir, request.param)
