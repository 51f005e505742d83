"""What a convolution is, beside its weights."""

from typing import NamedTuple

from torch import nn

Pair = tuple[int, ...]


class ConvGeometry(NamedTuple):
    """Of a convolution of images, in the order in which `torch.convolution` takes it."""

    stride: Pair
    padding: Pair
    dilation: Pair = (1, 1)
    transposed: bool = False
    output_padding: Pair = (0, 0)
    groups: int = 1

    @classmethod
    def of(cls, conv: nn.Conv2d) -> "ConvGeometry":
        """That of a layer whose padding is given in pixels."""
        assert not isinstance(conv.padding, str)
        return cls(conv.stride, conv.padding, conv.dilation, groups=conv.groups)

    @property
    def plain(self) -> bool:
        """Whether neighbouring pixels of all channels are convolved, and nothing is transposed."""
        return self.dilation == (1, 1) and not self.transposed and self.groups == 1
