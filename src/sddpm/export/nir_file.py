"""A model as FILE.nir: the graph of `nir_graph`, with the metadata needed to sample from it."""

import json
from pathlib import Path

import nir
import numpy as np
import torch

from sddpm.export.description import describe, own_thresholds
from sddpm.export.nir_graph import DT, nir_graph
from sddpm.files import atomic_path
from sddpm.models.thresholds import Thresholds, at_threshold
from sddpm.pipelines import SpikingDiffusionPipeline


def export_nir(
    pipeline: SpikingDiffusionPipeline,
    out: Path,
    *,
    thresholds: Thresholds | None = None,
    timestep: int | None = None,
) -> nir.NIRGraph:
    """Write a model as FILE.nir, and return its graph.

    The metadata of the graph are: in "sddpm" a JSON text (from `describe`, with dt, timestep and descriptions of input
    and output); in "time_embedding" float32 [N, 4 base_channels]; and, if the model has classes, in "class_embedding"
    float32 [classes + 1, 4 base_channels], whose last row means no class. The input's constant maps are SiLU of the sum
    of both.

    Args:
        pipeline: the model.
        out: FILE.nir.
        thresholds: firing thresholds for the export; None for those that the model samples with.
        timestep: the one diffusion step that the graph is for; None for all.

    Raises:
        UserError: a network that NIR cannot represent, with the reason and what is needed; a file that cannot be
            written.
    """
    unet = pipeline.unet
    thresholds = own_thresholds(pipeline) if thresholds is None else thresholds
    with at_threshold(unet, thresholds):
        graph = nir_graph(unet, timestep)
        facts = describe(pipeline, rates=False) | {"dt": DT, "timestep": timestep, "readout_decay": unet.readout.decay}
    graph.metadata = {"sddpm": json.dumps(facts)}
    if timestep is None:
        steps = torch.arange(unet.config["num_train_timesteps"], device=unet.device)
        graph.metadata["time_embedding"] = _array(unet.time_embedding(steps))
        if unet.class_embedding is not None:
            graph.metadata["class_embedding"] = _array(unet.class_embedding.weight)
    with atomic_path(out) as temporary:
        nir.write(temporary, graph)
    return graph


def _array(x) -> np.ndarray:
    return x.detach().cpu().float().numpy()
