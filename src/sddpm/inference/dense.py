"""The real-valued operations of a compiled network: the first convolution, the shortcuts and the readout.

They are 4 % of a network's arithmetic. `Dense` uses dense_conv.cpp and readout.cpp with a fixed order of summation:
results are bit-identical at any batch size, on any number of threads, and with any instruction set that has fused
multiply-adds. In fast mode shortcuts are computed in bfloat16 if the CPU has AMX. `TorchDense` uses PyTorch's
operators, for other devices and precisions.
"""

import ctypes
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from sddpm.inference.folding import FoldedConv
from sddpm.native import library, pointer, pointers, run, threads_for

PANEL = 16  # output channels of a panel of weights in dense_conv.cpp and dense_amx.cpp
STEP = 32  # input channels of a step of dense_amx.cpp

Conv = Callable[[list[Tensor]], Tensor]
"""Parts [S, B, H, W, I_i] of a concatenation over channels (a single part unless the filter is 1x1) -> [S or T, B, H,
W, O]."""


class TorchDense:
    """PyTorch's operators, in any precision and on any device."""

    def __init__(self, device: torch.device, dtype: torch.dtype):
        self.device, self.dtype = device, dtype

    def _place(self, x: Tensor) -> Tensor:
        return x.to(self.device, self.dtype)

    def conv(self, folded: FoldedConv) -> Conv:
        """A same-padded convolution."""
        bias = self._place(folded.bias)[:, None, None, None]
        scale = None if folded.scale is None else self._place(folded.scale).view(-1, 1, 1, 1, 1)
        weight = self._place(folded.weight).contiguous(memory_format=torch.channels_last)

        def convolve(parts: list[Tensor]) -> Tensor:
            parts = [part.to(self.dtype) for part in parts]
            if weight.shape[-1] == 1:
                matrices = weight[:, :, 0, 0].t().split([part.shape[-1] for part in parts])
                out = sum(part @ matrix for part, matrix in zip(parts, matrices, strict=True))
            else:
                images = parts[0].flatten(0, 1).permute(0, 3, 1, 2)
                out = F.conv2d(images, weight, padding=weight.shape[-1] // 2)
                out = out.permute(0, 2, 3, 1).unflatten(0, parts[0].shape[:2])
            return out + bias if scale is None else out * scale + bias

        return convolve

    def silu(self, gain: Tensor, offset: Tensor) -> Callable[[Tensor], Tensor]:
        """[..., C] -> SiLU(gain x + offset)."""
        gain, offset = self._place(gain), self._place(offset)
        return lambda x: F.silu(torch.addcmul(offset, x, gain), inplace=True)

    def readout(self, weights: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """a, b [T, ...] -> the sum over n of weights[n] (a[n] + SiLU(b[n])): [...]."""
        weights = self._place(weights)
        return lambda a, b: torch.tensordot(weights, a + F.silu(b), dims=1)


class ConvCall(ctypes.Structure):
    """Mirrors `struct ConvCall` of dense_conv.cpp."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("threads", "inputs")),
        *((name, ctypes.c_int64) for name in ("steps", "images", "H", "W", "size", "out_channels")),
        ("channels", ctypes.c_int64 * 2),
        *((name, ctypes.c_int64) for name in ("scale_stride", "bias_stride")),
        ("x", ctypes.c_void_p * 2),
        *((name, ctypes.c_void_p) for name in ("weight", "scale", "bias", "zeros", "out")),
    )


class SiluCall(ctypes.Structure):
    """Mirrors readout.cpp."""

    _fields_ = (
        ("threads", ctypes.c_int32),
        *((name, ctypes.c_int64) for name in ("rows", "channels")),
        *((name, ctypes.c_void_p) for name in ("x", "gain", "offset", "out")),
    )


class ReadoutCall(ctypes.Structure):
    """Mirrors readout.cpp."""

    _fields_ = (
        ("threads", ctypes.c_int32),
        *((name, ctypes.c_int64) for name in ("T", "size")),
        *((name, ctypes.c_void_p) for name in ("weights", "a", "b", "out")),
    )


class DenseConv:
    """A same-padded convolution by dense_conv.cpp; a `Conv`.

    half: whether it is computed in bfloat16 by dense_amx.cpp, for 1x1 convolutions if `has_half`.
    """

    def __init__(self, folded: FoldedConv, half: bool = False):
        self._channels, _, size, _ = folded.weight.shape
        self._fan_in, self._steps = folded.weight[0].numel(), len(folded.bias)
        self._half = folded.weight[:, :, 0, 0].t() if half else None
        self._tiles: dict[tuple[int, ...], Tensor] = {}
        padding = -self._channels % PANEL
        weight = F.pad(folded.weight.permute(2, 3, 1, 0).flatten(0, 2), (0, padding)).float()
        weight = weight.view(len(weight), -1, PANEL).transpose(0, 1).contiguous()
        bias = F.pad(folded.bias, (0, padding)).float().contiguous()
        scale = torch.ones(1, dtype=torch.float32, device="cpu") if folded.scale is None else folded.scale.float()
        zeros = torch.zeros(folded.weight.shape[1], dtype=torch.float32, device="cpu")
        self._held = weight, bias, scale, zeros  # kept alive as long as their addresses are used
        self._constant = ConvCall(
            size=size,
            out_channels=self._channels,
            scale_stride=int(len(scale) > 1),
            bias_stride=bias.shape[1] if len(bias) > 1 else 0,
            **pointers(torch.float32, weight=weight, scale=scale, bias=bias, zeros=zeros),
        )

    def __call__(self, parts: list[Tensor]) -> Tensor:
        if parts[0].shape[0] < self._steps:
            parts = [part.expand(self._steps, -1, -1, -1, -1) for part in parts]
        parts = [part.contiguous() for part in parts]
        out = torch.empty(*parts[0].shape[:-1], self._channels, dtype=torch.float32, device="cpu")
        call = ConvCall.from_buffer_copy(self._constant)
        call.threads = threads_for(out.numel() * self._fan_in // 64)
        call.inputs = len(parts)
        call.steps, call.images, call.H, call.W, _ = parts[0].shape
        for i, part in enumerate(parts):
            call.channels[i], call.x[i] = part.shape[-1], pointer("x", part, torch.float32)
        call.out = pointer("out", out, torch.float32)
        if self._half is not None:
            tiles = self._tiles_for(self._half, tuple(part.shape[-1] for part in parts))
            call.weight = pointer("weight", tiles, torch.bfloat16)
        run("sddpm_dense_conv" if self._half is None else "sddpm_dense_amx", call)
        return out

    def _tiles_for(self, weight: Tensor, widths: tuple[int, ...]) -> Tensor:
        """Weights [I, O] in bfloat16 for inputs with these numbers of channels: [O' / PANEL][steps][STEP /
        2][PANEL][2]."""
        if widths not in self._tiles:
            padded = [F.pad(part, (0, -self._channels % PANEL, 0, -len(part) % STEP)) for part in weight.split(widths)]
            tiles = torch.cat(padded).bfloat16().unflatten(0, (-1, STEP // 2, 2)).unflatten(3, (-1, PANEL))
            self._tiles[widths] = tiles.permute(3, 0, 1, 4, 2).contiguous()
        return self._tiles[widths]


@cache
def has_half() -> bool:
    """Whether dense_amx.cpp was built, and runs on this machine."""
    has = getattr(library(), "sddpm_dense_amx_has", None)
    return has is not None and bool(has())


class Dense:
    """This package's kernels, on the CPU in float32, with the interface of `TorchDense`.

    half: whether 1x1 convolutions may be computed in bfloat16; this is done if the CPU has AMX.
    """

    def __init__(self, half: bool = False):
        self.half = half and has_half()

    @staticmethod
    def available() -> bool:
        return hasattr(library(), "sddpm_dense_conv")

    def conv(self, folded: FoldedConv) -> Conv:
        return DenseConv(folded, self.half and folded.weight.shape[-1] == 1)

    def silu(self, gain: Tensor, offset: Tensor) -> Callable[[Tensor], Tensor]:
        gain, offset = gain.float(), offset.float()

        def activate(x: Tensor) -> Tensor:
            x = x.contiguous()
            out = torch.empty_like(x)
            call = SiluCall(
                threads=threads_for(x.numel()),
                rows=x.numel() // len(gain),
                channels=len(gain),
                **pointers(torch.float32, x=x, gain=gain, offset=offset, out=out),
            )
            run("sddpm_dense_silu", call)
            return out

        return activate

    def readout(self, weights: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        weights = weights.float()

        def read_out(a: Tensor, b: Tensor) -> Tensor:
            out = torch.empty(a.shape[1:], dtype=torch.float32, device="cpu")
            call = ReadoutCall(
                threads=threads_for(a.numel()),
                T=len(a),
                size=out.numel(),
                **pointers(torch.float32, weights=weights, a=a, b=b, out=out),
            )
            run("sddpm_dense_readout", call)
            return out

        return read_out
