"""The compiled form of the spiking U-Net for sampling: batch norm folded, spikes as bytes, channels last."""

from sddpm.inference.compiled import CompiledUNet, compile_model

__all__ = ["CompiledUNet", "compile_model"]
