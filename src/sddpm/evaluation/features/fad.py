"""The encoder of FSVAE's autoencoder (Kamata et al., arXiv 2110.12889), whose latent space FAD uses."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sddpm.data import to_model

WIDTHS = (32, 64, 128, 256)
FAD_SIZE, FAD_DIM = 32, 64


class FadEncoder(nn.Module):
    """Four stride-2 3x3 convolutions with batch norm and LeakyReLU, then a linear layer to 64 numbers.

    Parameter names are those of the published autoencoders: encoder.N.0 (convolution), encoder.N.1 (batch norm),
    latent_layer. Random weights, evaluation mode.
    """

    def __init__(self, channels: int):
        super().__init__()
        pairs = zip((channels, *WIDTHS), WIDTHS, strict=False)
        self.encoder = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.LeakyReLU()) for a, b in pairs)
        )
        self.latent_layer = nn.Linear(WIDTHS[-1] * 4, FAD_DIM)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, 32, 32] in [-1, 1] -> latents [B, 64]."""
        return self.latent_layer(self.encoder(images).flatten(1))


def preprocess_fad(images: Tensor) -> Tensor:
    """uint8 [B, C, H, W] -> float [B, C, 32, 32] in [-1, 1]. Other sizes are first resized by Pillow's bilinear filter
    on uint8, which is part of the protocol (padding 28 to 32 instead gives distances of about 100)."""
    if images.shape[2:] == (FAD_SIZE, FAD_SIZE):
        return to_model(images)
    resized = [
        [np.asarray(Image.fromarray(plane).resize((FAD_SIZE, FAD_SIZE), Image.Resampling.BILINEAR)) for plane in image]
        for image in images.cpu().numpy()
    ]
    return to_model(torch.from_numpy(np.array(resized)).to(images.device))
