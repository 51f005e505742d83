"""Both preprocessings against their definition as a weighted sum of pixels, computed in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sddpm.errors import UserError
from sddpm.evaluation.features.preprocess import preprocess
from tests.helpers.resize_weights import OUT, bicubic_weights, bilinear_weights


@pytest.fixture(params=[32, 350])
def image(request):
    return np.random.default_rng(0).integers(0, 256, (2, 3, request.param, request.param), np.uint8)


@pytest.mark.parametrize(
    ("name", "weights", "scale"),
    [
        ("pytorch-fid", bilinear_weights, lambda x: x / 255 * 2 - 1),
        ("clean-fid", bicubic_weights, lambda x: (x.clip(0, 255) - 128) / 128),
    ],
)
def test_resized_and_scaled_as_defined(image, name, weights, scale):
    w = weights(image.shape[-1])
    expected = scale(np.einsum("ih,jw,bchw->bcij", w, w, image.astype(np.float64), optimize=True))
    found = preprocess(torch.from_numpy(image), name)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=2e-4)  # float32 coordinates


@pytest.mark.parametrize("size", [28, 32, 64, 299, 350])
def test_clean_fid_is_pillow_on_float_channels(size):
    picture = np.random.default_rng(1).integers(0, 256, (size, size, 3), np.uint8)
    channels = [Image.fromarray(picture[:, :, c].astype(np.float32), "F") for c in range(3)]
    resized = np.stack([np.array(x.resize((OUT, OUT), Image.Resampling.BICUBIC)).clip(0, 255) for x in channels])
    found = preprocess(torch.from_numpy(picture).permute(2, 0, 1)[None], "clean-fid")
    np.testing.assert_allclose(found[0].numpy() * 128 + 128, resized, rtol=0, atol=1e-4)


def test_clean_fid_clips_but_does_not_round():
    step = np.zeros((1, 1, 32, 32), np.uint8)
    step[..., 16:] = 255  # beside which a bicubic filter swings below 0 and above 255
    found = preprocess(torch.from_numpy(step), "clean-fid")
    assert found.shape == (1, 3, 299, 299)
    assert (found.min(), found.max()) == (-1, 127 / 128)
    levels = found * 128 + 128
    assert (levels - levels.round()).abs().max() > 0.3


def test_pytorch_fid_is_bilinear_interpolation_to_the_bit():
    images = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    x = F.interpolate(images.float() / 255, size=(OUT, OUT), mode="bilinear", align_corners=False)
    assert torch.equal(preprocess(images, "pytorch-fid"), 2 * x - 1)


def test_unknown_name():
    with pytest.raises(UserError, match="pytorch-fid, clean-fid"):
        preprocess(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "bilinear")
