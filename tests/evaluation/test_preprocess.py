"""Both preprocessings against their definition as a weighted sum of pixels, computed in float64."""

import numpy as np
import pytest
import torch

from sddpm.errors import UserError
from sddpm.evaluation.features.preprocess import preprocess

OUT = 299


def bilinear_weights(size):
    """[299, size]: half-pixel centres, no antialiasing, edge pixels repeated."""
    weights = np.zeros((OUT, size))
    for i in range(OUT):
        x = max((i + 0.5) * size / OUT - 0.5, 0)
        low = min(int(x), size - 1)
        weights[i, low] += 1 - (x - low)
        weights[i, min(low + 1, size - 1)] += x - low
    return weights


def bicubic_weights(size):
    """[299, size]: Keys' kernel with a = -0.5, widened when shrinking, renormalised at the edges."""
    scale = size / OUT
    width = max(scale, 1.0)

    def kernel(x):
        x = abs(x)
        if x < 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    weights = np.array([[kernel((j + 0.5 - (i + 0.5) * scale) / width) for j in range(size)] for i in range(OUT)])
    return weights / weights.sum(1, keepdims=True)


@pytest.fixture(params=[32, 350])
def image(request):
    return np.random.default_rng(0).integers(0, 256, (2, 3, request.param, request.param), np.uint8)


@pytest.mark.parametrize(
    ("name", "weights", "scale"),
    [
        ("pytorch-fid", bilinear_weights, lambda x: x / 255 * 2 - 1),
        ("clean-fid", bicubic_weights, lambda x: (x - 128) / 128),
    ],
)
def test_resized_and_scaled_as_defined(image, name, weights, scale):
    w = weights(image.shape[-1])
    expected = scale(np.einsum("ih,jw,bchw->bcij", w, w, image.astype(np.float64), optimize=True))
    found = preprocess(torch.from_numpy(image), name)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=2e-4)  # float32 coordinates


def test_clean_fid_neither_rounds_nor_clips():
    step = np.zeros((1, 1, 32, 32), np.uint8)
    step[..., 16:] = 255
    found = preprocess(torch.from_numpy(step), "clean-fid")
    assert found.shape == (1, 3, 299, 299)
    assert found.min() < -1.01 and found.max() > 1.01
    levels = found * 128 + 128
    assert (levels - levels.round()).abs().max() > 0.3


def test_unknown_name():
    with pytest.raises(UserError, match="pytorch-fid, clean-fid"):
        preprocess(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "bilinear")
