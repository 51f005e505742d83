"""For `DiffusionPipeline.from_pretrained(..., trust_remote_code=True)`, where sddpm is installed."""

from sddpm.pipelines import SpikingDiffusionPipeline

__all__ = ["SpikingDiffusionPipeline"]
