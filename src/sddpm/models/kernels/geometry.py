"""The geometry of a convolution: everything except its weights."""

from typing import NamedTuple

from torch import nn

Pair = tuple[int, ...]


class ConvGeometry(NamedTuple):
    """Geometry of a 2-d convolution, in the argument order of `torch.convolution`."""

    stride: Pair
    padding: Pair
    dilation: Pair = (1, 1)
    transposed: bool = False
    output_padding: Pair = (0, 0)
    groups: int = 1

    @classmethod
    def of(cls, conv: nn.Conv2d) -> "ConvGeometry":
        """The geometry of a layer whose padding is given in pixels."""
        assert not isinstance(conv.padding, str)
        return cls(conv.stride, conv.padding, conv.dilation, groups=conv.groups)

    @property
    def plain(self) -> bool:
        """Whether the convolution has no dilation, no groups and no transposition."""
        return self.dilation == (1, 1) and not self.transposed and self.groups == 1
