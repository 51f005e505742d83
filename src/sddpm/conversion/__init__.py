"""Conversion of checkpoints from and to other code, and of ANNs to spikes."""

from sddpm.conversion.reference import Conversion, from_reference, save_reference, to_reference

__all__ = ["Conversion", "from_reference", "save_reference", "to_reference"]
