"""A model in one ONNX file: its network, and the metadata needed to sample from it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

import sddpm
from sddpm.errors import UserError
from sddpm.export.description import describe, own_thresholds
from sddpm.export.graph import OPSET
from sddpm.export.network import network_graph
from sddpm.files import atomic_path
from sddpm.models.thresholds import Thresholds, at_threshold
from sddpm.opening.files import GIB, read_bytes
from sddpm.opening.json_files import parse_json
from sddpm.pipelines import SpikingDiffusionPipeline

KEY, FORMAT = "sddpm", 1  # of the metadata


@dataclass(frozen=True)
class OnnxFile:
    """The result of `read_onnx`: the file's bytes, and the metadata."""

    content: bytes
    metadata: dict[str, Any]


def export_onnx(
    pipeline: SpikingDiffusionPipeline,
    out: Path,
    *,
    thresholds: Thresholds | None = None,
    rates: bool = False,
    half: bool = False,
) -> onnx.ModelProto:
    """Write a model as an ONNX file, and return the written model.

    Weights that float16 represents exactly, as in released models, are stored in float16 and cast when loaded.

    Args:
        pipeline: the model, with its scheduler.
        out: FILE.onnx.
        thresholds: firing thresholds for the export; None for those that the model samples with.
        rates: whether firing rates are a second output; see `network_graph`.
        half: also round other weights with more than one axis to float16.

    Raises:
        UserError: a model with a part, which is named, that cannot be exported; a file that cannot be written.
    """
    model = onnx_model(pipeline, thresholds=thresholds, rates=rates, half=half)
    with atomic_path(out) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return model


def onnx_model(
    pipeline: SpikingDiffusionPipeline, *, thresholds: Thresholds | None = None, rates: bool = False, half: bool = False
) -> onnx.ModelProto:
    """The model that `export_onnx` writes."""
    thresholds = own_thresholds(pipeline) if thresholds is None else thresholds
    model = network_graph(pipeline.unet, thresholds, rates=rates)
    store_in_half(model.graph, rounded=half)
    model.producer_name, model.producer_version = "sddpm", sddpm.__version__
    with at_threshold(pipeline.unet, thresholds):
        metadata = describe(pipeline, rates=rates)
    metadata |= {"format": FORMAT, "opset": OPSET}
    metadata["sha256"] = graph_hash(model)
    helper.set_model_props(model, {KEY: json.dumps(metadata)})
    return model


def store_in_half(graph: onnx.GraphProto, *, rounded: bool) -> None:
    """Store float32 weights with more than one axis as float16, cast to float32 when the graph is loaded: those that
    float16 represents exactly, or all if `rounded`.

    Raises:
        UserError: a weight to be rounded that is out of float16's range.
    """
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if not rounded and not np.array_equal(halves, values):
            continue
        if not np.isfinite(halves).all():
            raise UserError(f"{tensor.name} has NaN or values out of the range of half precision: export without half")
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(halves, f"{name}.float16"))
        graph.node.insert(0, helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))


def graph_hash(model: onnx.ModelProto) -> str:
    """SHA-256 of the graph with its weights, in hexadecimal."""
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


def read_onnx(path: Path) -> OnnxFile:
    """An ONNX file that `export_onnx` wrote.

    Raises:
        UserError: no such file, a damaged one, or one written by other software.
    """
    content = read_bytes(path, 2 * GIB, "ONNX file")  # the maximum size of protocol buffers
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise UserError(f"{path} is damaged, or not an ONNX file") from error
    if not model.HasField("graph"):
        raise UserError(f"{path} is damaged, or not an ONNX file")
    text = {entry.key: entry.value for entry in model.metadata_props}.get(KEY)
    if text is None:
        maker = f" (by {model.producer_name})" if model.producer_name else ""
        raise UserError(f"{path} was not written by sddpm export{maker}: it has no metadata for sampling")
    try:
        metadata = parse_json(text, f"the metadata of {path}")
        found, wanted = metadata["format"], metadata["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: its metadata cannot be read") from error
    if found != FORMAT:
        raise UserError(f"{path} has format {found!r}, but this sddpm reads format {FORMAT}: export the model again")
    if graph_hash(model) != wanted:
        raise UserError(f"{path} is damaged: its weights are not the written ones; export the model again")
    return OnnxFile(content, metadata)
