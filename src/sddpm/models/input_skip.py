"""A linear path from x_t to the prediction, beside the spikes."""

from torch import Tensor, nn


class InputSkip(nn.Module):
    """x_t [B, C, H, W] and the embedding [B, time_channels] of its step and class -> x_t times a gain per channel.

    Spikes of T time steps carry few levels, and strong noise saturates them; the part of the prediction that is linear
    in x_t need not pass through them. Gains start at 0, so that they do not change a network that they are added to.
    This is the skip scaling of EDM (Karras et al., 2022, arXiv 2206.00364, eq. 7), learned. On hardware it joins the
    sampler's own sum of x_t and the prediction.
    """

    def __init__(self, channels: int, time_channels: int):
        super().__init__()
        projection = nn.Linear(time_channels, channels)
        nn.init.zeros_(projection.weight)
        nn.init.zeros_(projection.bias)
        self.gain = nn.Sequential(nn.SiLU(), projection)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        gain = self.gain(emb)
        return x * gain.view(*gain.shape, *[1] * (x.ndim - 2))
