"""Threshold guidance (SDDPM section 4.3): searches for firing thresholds other than the trained ones, validates and
saves them; x0_scale in the same way. Names are imported on first use because torch is slow to load."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sddpm.guidance.results import GuidanceReport as GuidanceReport
    from sddpm.guidance.run import guide as guide
    from sddpm.guidance.settings import GuidanceSettings as GuidanceSettings
    from sddpm.guidance.store import store_guidance as store_guidance
    from sddpm.guidance.store import store_sampler as store_sampler
    from sddpm.guidance.store import store_x0_scale as store_x0_scale

_LAZY = {
    "GuidanceReport": "results",
    "GuidanceSettings": "settings",
    "guide": "run",
    "store_guidance": "store",
    "store_sampler": "store",
    "store_x0_scale": "store",
}
__all__ = ["GuidanceReport", "GuidanceSettings", "guide", "store_guidance", "store_sampler", "store_x0_scale"]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(f"sddpm.guidance.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'sddpm.guidance' has no attribute {name!r}")
