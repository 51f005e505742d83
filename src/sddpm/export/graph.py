"""Builds an ONNX graph from a recording of PyTorch's elementary operators: values, constants and nodes."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from sddpm.errors import UserError
from sddpm.export.operators import OPERATORS, Translation
from sddpm.export.recording import Constant, Recording, Ref, Repeated, Size

OPSET, IR_VERSION = 18, 9


class GraphBuilder:
    """Collects nodes and initializers; values are names."""

    def __init__(self, recording: Recording, names: Mapping[int, str], inputs: Sequence[str]):
        self.recording, self.parameters = recording, names
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.values = {Ref(-1, i): name for i, name in enumerate(inputs)}
        self.batch = ""  # name of the value with the batch size, once it is needed
        self.batch_input = (inputs[0], next(i for i, d in enumerate(recording.inputs[0]) if isinstance(d, Size)))
        self.count = 0

    def node(self, kind: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node of this kind; returns the name of its output, or a list of names."""
        names = [self.fresh(kind) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, [self.value(x) for x in inputs], names, **attributes))
        return names[0] if outputs == 1 else names

    def fresh(self, kind: str) -> str:
        self.count += 1
        return f"{kind.lower()}_{self.count}"

    def value(self, x: Any) -> str:
        """The name of a value: a name, a `Ref`, a constant tensor, a number (float32) or whole numbers (int64)."""
        if isinstance(x, str):
            return x
        if isinstance(x, Ref):
            return self.values[x]
        if isinstance(x, Constant):
            return self.constant(x.tensor)
        if isinstance(x, Repeated):
            return self.node("Expand", Constant(x.tensor), x.shape)
        if isinstance(x, list | tuple) and any(isinstance(d, Size) for d in x):
            return self.node("Concat", *(self.size(d) for d in x), axis=0)
        if isinstance(x, Size):
            raise UserError("this network computes with its batch size, which the ONNX export does not support")
        array = np.asarray(x, np.int64 if isinstance(x, list | tuple) else None)
        return self.constant(torch.from_numpy(array) if array.dtype == np.int64 else torch.tensor(x))

    def constant(self, tensor: Tensor) -> str:
        name = self.parameters.get(id(tensor))
        if name is None:
            array = tensor.detach().contiguous().numpy()
            described = f"{array.dtype}{list(array.shape)}".encode() + array.tobytes()
            name = f"constant_{hashlib.sha256(described).hexdigest()[:16]}"
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(tensor.detach().contiguous().numpy(), name)
        return name

    def size(self, d: Any) -> str:
        """An int64 [1] with a size."""
        if not isinstance(d, Size):
            return self.value([d])
        if not self.batch:
            name, axis = self.batch_input
            self.batch = self.node("Shape", name, start=axis, end=axis + 1)
        return self.batch if d.times == 1 else self.node("Mul", self.batch, [d.times])

    def shape(self, x: Ref | Constant) -> tuple[Any, ...]:
        """The shape, with `Size` where it grows with the batch."""
        if isinstance(x, Constant):
            return tuple(x.tensor.shape)
        return self.recording.inputs[x.output] if x.call < 0 else self.recording.calls[x.call].shapes[x.output]

    def type(self, x: Ref) -> torch.dtype:
        """The dtype of a result."""
        return self.recording.calls[x.call].types[x.output]

    def reshape(self, x: Any, shape: Sequence[Any]) -> str:
        """Reshape to a shape of which one size can grow with the batch."""
        return self.node("Reshape", x, [-1 if isinstance(d, Size) else d for d in shape])

    def rename(self, ref: Ref, name: str) -> None:
        """Rename the output of a node, including all its uses."""
        old = self.values[ref]
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, each in enumerate(names):
                    if each == old:
                        names[i] = name
        self.values = {key: name if value == old else value for key, value in self.values.items()}


def build(
    recording: Recording, names: Mapping[int, str], inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    """The ONNX model of a recording.

    Args:
        recording: the recording to translate.
        names: names of the network's parameters and buffers, by id.
        inputs, outputs: their names. The first input is float32, the others are int64.

    Raises:
        UserError: an operator without a translation, which is named.
    """
    g = GraphBuilder(recording, names, inputs)
    for i, call in enumerate(recording.calls):
        operator = call.operator.overloadpacket.__name__
        translate: Translation | None = OPERATORS.get(operator)
        if translate is None:
            raise UserError(f"the network uses PyTorch's operator {operator}, for which the ONNX export has no entry")
        made = translate(g, call)
        for j, name in enumerate(made if isinstance(made, list) else [made]):
            g.values[Ref(i, j)] = name
    for name, ref in recording.marks.items():
        g.rename(ref, name)
    for ref, name in zip(recording.outputs, outputs, strict=True):
        g.nodes.append(helper.make_node("Identity", [g.values[ref]], [name]))
    kinds = [TensorProto.FLOAT] + [TensorProto.INT64] * (len(inputs) - 1)
    graph = helper.make_graph(
        g.nodes,
        "sddpm",
        [_info(name, kind, shape) for name, kind, shape in zip(inputs, kinds, recording.inputs, strict=True)],
        [_info(name, TensorProto.FLOAT, g.shape(ref)) for name, ref in zip(outputs, recording.outputs, strict=True)],
        list(g.initializers.values()),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _info(name: str, kind: int, shape: Sequence[Any]) -> onnx.ValueInfoProto:
    dims = [("batch" if d.times == 1 else f"{d.times}*batch") if isinstance(d, Size) else d for d in shape]
    return helper.make_tensor_value_info(name, kind, dims)
