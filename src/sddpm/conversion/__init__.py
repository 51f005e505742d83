"""Checkpoints of other code in and out."""

from sddpm.conversion.reference import Conversion, from_reference, save_reference, to_reference

__all__ = ["Conversion", "from_reference", "save_reference", "to_reference"]
