"""Records a network's evaluation as a list of PyTorch's elementary operators with their arguments.

The network is evaluated twice, with batches of 2 and 3: a size that differs between the two is a multiple of the batch,
and everything else is a constant. Values that do not depend on the inputs are computed by PyTorch and also become
constants.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sddpm.errors import UserError

BATCHES = (2, 3)


@dataclass(frozen=True)
class Ref:
    """Output number `output` of operator number `call`; for inputs of the network, call is -1."""

    call: int
    output: int


@dataclass(frozen=True)
class Size:
    """A size that is `times` the batch size."""

    times: int


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that does not depend on the inputs."""

    tensor: Tensor


@dataclass(frozen=True)
class Repeated:
    """A constant repeated over the batch: stored with size 1 along the axes where `shape` grows with the batch."""

    tensor: Tensor
    shape: tuple[Any, ...]


@dataclass
class Call:
    """An operator of PyTorch, its arguments (with `Ref`, `Size` and constants in them), and the shapes and types of its
    outputs."""

    operator: Any
    arguments: list[Any]
    options: dict[str, Any]
    shapes: list[tuple[Any, ...]]
    types: list[torch.dtype]


@dataclass
class Recording:
    """All calls in order, the references of the results, and the tensors that were marked with a name."""

    calls: list[Call] = field(default_factory=list)
    inputs: list[tuple[Any, ...]] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    marks: dict[str, Ref] = field(default_factory=dict)


class _Recorder(TorchDispatchMode):
    def __init__(self, inputs: Sequence[Tensor]):
        super().__init__()
        self.recording = Recording(inputs=[tuple(x.shape) for x in inputs])
        self.known: dict[int, Ref] = {id(x): Ref(-1, i) for i, x in enumerate(inputs)}
        self.alive: list[Any] = list(inputs)  # otherwise a new tensor could get the id of a deleted one

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        arguments, options = self.encode(list(args)), {key: self.encode(value) for key, value in kwargs.items()}
        result = func(*args, **kwargs)
        self.alive.append((args, kwargs, result))
        if _depends(arguments) or _depends(list(options.values())):
            results = [x for x in (result if isinstance(result, tuple | list) else [result]) if isinstance(x, Tensor)]
            self.known |= {id(tensor): Ref(len(self.recording.calls), i) for i, tensor in enumerate(results)}
            self.recording.calls.append(
                Call(func, arguments, options, [tuple(x.shape) for x in results], [x.dtype for x in results])
            )
        return result

    def encode(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.known.get(id(value)) or Constant(value)
        if isinstance(value, list | tuple):
            return [self.encode(each) for each in value]
        return value


def _depends(value: Any) -> bool:
    return any(map(_depends, value)) if isinstance(value, list) else isinstance(value, Ref)


Mark = Callable[[str, Tensor], None]


def record(
    run: Callable[[Sequence[Tensor], Mark], Sequence[Tensor]], inputs: Callable[[int], Sequence[Tensor]]
) -> Recording:
    """The operators of `run`, whose first argument is the inputs for a given batch size, and whose second is a function
    that gives a name to a tensor; it returns the outputs.

    Raises:
        UserError: the operators depend on the batch size other than by sizes proportional to it.
    """
    recordings = []
    for batch in BATCHES:
        given = inputs(batch)
        with torch.no_grad(), _Recorder(given) as recorder:
            marks: dict[str, Tensor] = {}
            outputs = run(given, marks.__setitem__)
        recorder.recording.outputs = [recorder.encode(output) for output in outputs]
        recorder.recording.marks = {name: recorder.known[id(tensor)] for name, tensor in marks.items()}
        recordings.append(recorder.recording)
    first, second = recordings
    if [call.operator for call in first.calls] != [call.operator for call in second.calls]:
        raise UserError("this network's operators depend on the batch size, which the ONNX export does not support")
    calls = [
        Call(
            a.operator,
            _merge(a.arguments, b.arguments),
            {key: _merge(value, b.options[key]) for key, value in a.options.items()},
            _merge(a.shapes, b.shapes),
            a.types,
        )
        for a, b in zip(first.calls, second.calls, strict=True)
    ]
    return Recording(calls, _merge(first.inputs, second.inputs), _merge(first.outputs, second.outputs), first.marks)


def _merge(a: Any, b: Any) -> Any:
    """Merge two recordings: a size that differs is a multiple of the batch size."""
    if isinstance(a, list | tuple):
        return type(a)(_merge(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Constant):
        if a.tensor is b.tensor or (a.tensor.shape == b.tensor.shape and torch.equal(a.tensor, b.tensor)):
            return a
        shape = _merge(tuple(a.tensor.shape), tuple(b.tensor.shape))
        one = a.tensor[tuple(slice(1) if isinstance(size, Size) else slice(None) for size in shape)]
        if (a.tensor == one).all() and (b.tensor == one).all():
            return Repeated(one, shape)
        raise UserError("this network computes a constant from the batch size, which the ONNX export does not support")
    if isinstance(a, int) and a != b:
        times = a // BATCHES[0]
        if [times * batch for batch in BATCHES] != [a, b]:
            raise UserError(
                f"this network has a size of {a} for {BATCHES[0]} samples and {b} for {BATCHES[1]}: it must be "
                "proportional to the batch"
            )
        return Size(times)
    return a
