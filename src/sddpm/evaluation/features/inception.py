"""The Inception-v3 of 2015 (Szegedy et al., arXiv 1512.00567) as used by FID, KID and the Inception score.

Parameter names are those of the published PyTorch port, pt_inception-2015-12-05-6726825d.pth. The network differs from
the later Inception-v3 in three ways: 1008 classes, average pools that exclude the padding, and a max pool in the last
block. Only the layers up to the deepest requested feature are built.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sddpm.errors import UserError

# Feature -> (its layer, its length). "spatial" is for sFID (Nash et al., arXiv 2103.03841): the first 7 channels of the
# 17x17 map that ADM's evaluator calls mixed_6/conv, which is Mixed_6d's 1x1 branch after its ReLU. The layout is that
# of ADM's statistics files, [17, 17, 7].
FEATURES: dict[str, tuple[str, int]] = {
    "64": ("Conv2d_2b_3x3", 64),
    "192": ("Conv2d_4a_3x3", 192),
    "spatial": ("Mixed_6d", 7 * 17 * 17),
    "768": ("Mixed_6e", 768),
    "2048": ("Mixed_7c", 2048),
    "logits": ("fc", 1008),
}
INPUT_SIZE = 299
Size = int | tuple[int, int]
Convolutions = dict[str, tuple[int, int, Size]]  # name -> input channels, output channels, kernel


class BasicConv2d(nn.Module):
    """Convolution without bias, batch norm (eps 1e-3), ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Size, stride: int = 1, padding: Size = 0):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)

    def fold(self) -> None:
        """Fold the batch norm's gain into the convolution's weights and its shift into a bias."""
        assert isinstance(self.bn, nn.BatchNorm2d), "folded already"
        self.conv, self.bn = fuse_conv_bn_eval(self.conv, self.bn), nn.Identity()


POOLS = {
    "average": lambda x: F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False),
    "max": lambda x: F.max_pool2d(x, 3, stride=1, padding=1),
    "max_half": lambda x: F.max_pool2d(x, 3, stride=2),
}


class Mixed(nn.Module):
    """Parallel branches, concatenated along the channels.

    Args:
        convolutions: all convolutions of the block. They keep the size of the map, except those in `halving`.
        branches: each a path through pools and convolutions; a common beginning of paths is computed once.
        halving: convolutions of stride 2 without padding.
    """

    def __init__(self, convolutions: Convolutions, branches: Sequence[Sequence[str]], halving: Sequence[str] = ()):
        super().__init__()
        self.branches = [tuple(branch) for branch in branches]
        for name, (in_channels, out_channels, kernel) in convolutions.items():
            height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
            stride, padding = (2, (0, 0)) if name in halving else (1, (height // 2, width // 2))
            self.add_module(name, BasicConv2d(in_channels, out_channels, kernel, stride, padding))

    def forward(self, x: Tensor) -> Tensor:
        done: dict[tuple[str, ...], Tensor] = {(): x}
        for branch in self.branches:
            for i, name in enumerate(branch):
                if branch[: i + 1] not in done:
                    step = POOLS[name] if name in POOLS else self.get_submodule(name)
                    done[branch[: i + 1]] = step(done[branch[:i]])
        return torch.cat([done[branch] for branch in self.branches], 1)


def block_5(in_channels: int, pool_channels: int) -> Mixed:
    """35x35 maps: 1x1, 5x5, double 3x3 and pool branches; 224 + `pool_channels` channels."""
    return Mixed(
        {
            "branch1x1": (in_channels, 64, 1),
            "branch5x5_1": (in_channels, 48, 1),
            "branch5x5_2": (48, 64, 5),
            "branch3x3dbl_1": (in_channels, 64, 1),
            "branch3x3dbl_2": (64, 96, 3),
            "branch3x3dbl_3": (96, 96, 3),
            "branch_pool": (in_channels, pool_channels, 1),
        },
        [
            ["branch1x1"],
            ["branch5x5_1", "branch5x5_2"],
            ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"],
            ["average", "branch_pool"],
        ],
    )


def block_6a() -> Mixed:
    """From 288 channels at 35x35 to 768 at 17x17."""
    return Mixed(
        {
            "branch3x3": (288, 384, 3),
            "branch3x3dbl_1": (288, 64, 1),
            "branch3x3dbl_2": (64, 96, 3),
            "branch3x3dbl_3": (96, 96, 3),
        },
        [["branch3x3"], ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"], ["max_half"]],
        halving=["branch3x3", "branch3x3dbl_3"],
    )


def block_6(width: int) -> Mixed:
    """17x17 maps, 768 channels: 7x7 convolutions split into rows and columns of `width` channels."""
    row, column = (1, 7), (7, 1)
    return Mixed(
        {
            "branch1x1": (768, 192, 1),
            "branch7x7_1": (768, width, 1),
            "branch7x7_2": (width, width, row),
            "branch7x7_3": (width, 192, column),
            "branch7x7dbl_1": (768, width, 1),
            "branch7x7dbl_2": (width, width, column),
            "branch7x7dbl_3": (width, width, row),
            "branch7x7dbl_4": (width, width, column),
            "branch7x7dbl_5": (width, 192, row),
            "branch_pool": (768, 192, 1),
        },
        [
            ["branch1x1"],
            ["branch7x7_1", "branch7x7_2", "branch7x7_3"],
            [f"branch7x7dbl_{i}" for i in range(1, 6)],
            ["average", "branch_pool"],
        ],
    )


def block_7a() -> Mixed:
    """From 768 channels at 17x17 to 1280 at 8x8."""
    return Mixed(
        {
            "branch3x3_1": (768, 192, 1),
            "branch3x3_2": (192, 320, 3),
            "branch7x7x3_1": (768, 192, 1),
            "branch7x7x3_2": (192, 192, (1, 7)),
            "branch7x7x3_3": (192, 192, (7, 1)),
            "branch7x7x3_4": (192, 192, 3),
        },
        [["branch3x3_1", "branch3x3_2"], [f"branch7x7x3_{i}" for i in range(1, 5)], ["max_half"]],
        halving=["branch3x3_2", "branch7x7x3_4"],
    )


def block_7(in_channels: int, pool: str) -> Mixed:
    """8x8 maps, 2048 channels: 3x3 convolutions that end in a row and a column convolution in parallel."""
    row, column = (1, 3), (3, 1)
    return Mixed(
        {
            "branch1x1": (in_channels, 320, 1),
            "branch3x3_1": (in_channels, 384, 1),
            "branch3x3_2a": (384, 384, row),
            "branch3x3_2b": (384, 384, column),
            "branch3x3dbl_1": (in_channels, 448, 1),
            "branch3x3dbl_2": (448, 384, 3),
            "branch3x3dbl_3a": (384, 384, row),
            "branch3x3dbl_3b": (384, 384, column),
            "branch_pool": (in_channels, 192, 1),
        },
        [
            ["branch1x1"],
            ["branch3x3_1", "branch3x3_2a"],
            ["branch3x3_1", "branch3x3_2b"],
            ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a"],
            ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3b"],
            [pool, "branch_pool"],
        ],
    )


LAYERS = {
    "Conv2d_1a_3x3": lambda: BasicConv2d(3, 32, 3, stride=2),
    "Conv2d_2a_3x3": lambda: BasicConv2d(32, 32, 3),
    "Conv2d_2b_3x3": lambda: BasicConv2d(32, 64, 3, padding=1),
    "Conv2d_3b_1x1": lambda: BasicConv2d(64, 80, 1),
    "Conv2d_4a_3x3": lambda: BasicConv2d(80, 192, 3),
    "Mixed_5b": lambda: block_5(192, 32),
    "Mixed_5c": lambda: block_5(256, 64),
    "Mixed_5d": lambda: block_5(288, 64),
    "Mixed_6a": block_6a,
    "Mixed_6b": lambda: block_6(128),
    "Mixed_6c": lambda: block_6(160),
    "Mixed_6d": lambda: block_6(160),
    "Mixed_6e": lambda: block_6(192),
    "Mixed_7a": block_7a,
    "Mixed_7b": lambda: block_7(1280, "average"),
    "Mixed_7c": lambda: block_7(2048, "max"),
    # The Inception score is defined without the bias of the last layer (Salimans et al., arXiv 1606.03498).
    "fc": lambda: nn.Linear(2048, 1008, bias=False),
}
POOLED = ("Conv2d_2b_3x3", "Conv2d_4a_3x3")  # a 3x3 max pool of stride 2 follows these


class InceptionV3(nn.Module):
    """The network up to the deepest of `features` (names of `FEATURES`), with random weights, in evaluation mode.

    Raises:
        UserError: an unknown feature.
    """

    def __init__(self, features: Sequence[str]):
        super().__init__()
        for name in features:
            if name not in FEATURES:
                raise UserError(f"Inception has no feature {name!r}: choose from {', '.join(FEATURES)}")
        self.features = tuple(features)
        names = list(LAYERS)
        deepest = max(names.index(FEATURES[name][0]) for name in features)
        for name in names[: deepest + 1]:
            self.add_module(name, LAYERS[name]())
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images [B, 3, 299, 299], nominally in [-1, 1] -> {feature: [B, length]}.

        64, 192, 768 and 2048 are means over the map; "spatial" is [17, 17, 7], flattened; "logits" are the values
        before the softmax.
        """
        found: dict[str, Tensor] = {}
        wanted = {FEATURES[name][0]: name for name in self.features}
        x = images
        for layer, module in self.named_children():
            x = module(x)
            if layer in POOLED:
                x = F.max_pool2d(x, 3, stride=2)
            if layer == "Mixed_7c":
                x = x.mean((2, 3))
            if layer in wanted:
                name = wanted[layer]
                found[name] = _read(x, name)
        return found

    def fold(self) -> "InceptionV3":
        """Fold all batch norms into their convolutions: the same function, a tenth faster. This changes the names of
        the weights, so load them first."""
        for module in self.modules():
            if isinstance(module, BasicConv2d):
                module.fold()
        return self


def _read(x: Tensor, name: str) -> Tensor:
    """The feature `name` from the map [B, C, H, W] or the vectors [B, C] of its layer."""
    if name == "spatial":
        return x[:, :7].permute(0, 2, 3, 1).flatten(1)
    return x if x.ndim == 2 else x.mean((2, 3))
