"""PyTorch's elementary operators as nodes of ONNX, by name. To add one, add one entry; the tests then cover it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from onnx import TensorProto

from sddpm.export.recording import Call, Constant, Ref, Size

if TYPE_CHECKING:
    from sddpm.export.graph import GraphBuilder

Translation = Callable[["GraphBuilder", Call], Any]
TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.FLOAT,
    torch.int64: TensorProto.INT64,
    torch.bool: TensorProto.BOOL,
}


def _plain(kind: str) -> Translation:
    """Translate to a node with the same inputs; numbers become constants."""
    return lambda g, c: g.node(kind, *(_number(x) for x in c.arguments))


def _number(x: Any) -> Any:
    return float(x) if isinstance(x, int | float) and not isinstance(x, bool) else x


def _product(g: "GraphBuilder", c: Call) -> str:
    """A product; true and false count as 1 and 0."""
    counted = [
        g.node("Cast", x, to=TYPES[c.types[0]]) if isinstance(x, Ref) and x.call >= 0 and g.type(x) == torch.bool else x
        for x in c.arguments
    ]
    return g.node("Mul", *map(_number, counted))


def _argument(c: Call, i: int, default: Any = None, name: str = "") -> Any:
    return c.arguments[i] if i < len(c.arguments) else c.options.get(name, default)


def _with_alpha(kind: str, swapped: bool = False) -> Translation:
    """a + alpha b or a - alpha b."""

    def translate(g: "GraphBuilder", c: Call) -> str:
        a, b = (_number(x) for x in c.arguments[:2])
        if (alpha := _argument(c, 2, 1, "alpha")) != 1:
            b = g.node("Mul", b, float(alpha))
        return g.node(kind, b, a) if swapped else g.node(kind, a, b)

    return translate


def _convolution(g: "GraphBuilder", c: Call) -> str:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = c.arguments
    assert not transposed
    inputs = [x, weight] + ([] if bias is None else [bias])
    return g.node("Conv", *inputs, strides=stride, pads=[*padding, *padding], dilations=dilation, group=groups)


def _batch_norm(g: "GraphBuilder", c: Call) -> list[str]:
    x, weight, bias, mean, variance = c.arguments[:5]
    return [g.node("BatchNormalization", x, weight, bias, mean, variance, epsilon=float(c.arguments[-1]))]


def _group_norm(g: "GraphBuilder", c: Call) -> list[str]:
    x, weight, bias, _, _, _, groups, epsilon = c.arguments
    shape = g.shape(x)
    ones, zeros = Constant(torch.ones(groups)), Constant(torch.zeros(groups))
    flat = g.node("Reshape", x, [0, groups, -1])
    normal = g.reshape(g.node("InstanceNormalization", flat, ones, zeros, epsilon=float(epsilon)), shape)
    for kind, factor in (("Mul", weight), ("Add", bias)):
        if factor is not None:
            normal = g.node(kind, normal, g.node("Reshape", factor, [-1] + [1] * (len(shape) - 2)))
    return [normal]


def _view(g: "GraphBuilder", c: Call) -> str:
    return g.reshape(c.arguments[0], c.shapes[0])


def _expand(g: "GraphBuilder", c: Call) -> str:
    before, after = g.shape(c.arguments[0]), c.shapes[0]
    kept = (1,) * (len(after) - len(before)) + before
    return g.node("Expand", c.arguments[0], [1 if d == k else d for d, k in zip(after, kept, strict=True)])


def _filled(value: float | None) -> Translation:
    """A tensor of the shape of another, filled with a number."""

    def translate(g: "GraphBuilder", c: Call) -> str:
        number = c.arguments[1] if value is None else value
        return g.node("Expand", float(number), g.node("Shape", c.arguments[0]))

    return translate


def _permute(g: "GraphBuilder", c: Call) -> Any:
    order = [d % len(c.shapes[0]) for d in c.arguments[1]]
    return g.value(c.arguments[0]) if order == sorted(order) else g.node("Transpose", c.arguments[0], perm=order)


def _transpose(g: "GraphBuilder", c: Call) -> str:
    dims = len(c.shapes[0])
    i, j = (d % dims for d in (c.arguments[1:] or (0, 1)))
    order = list(range(dims))
    order[i], order[j] = j, i
    return g.node("Transpose", c.arguments[0], perm=order)


def _select(g: "GraphBuilder", c: Call) -> str:
    x, axis, index = c.arguments
    return g.node("Gather", x, Constant(torch.tensor(index)), axis=axis % len(g.shape(x)))


def _slice(g: "GraphBuilder", c: Call) -> Any:
    x, axis = c.arguments[0], _argument(c, 1, 0, "dim")
    start, end = (_argument(c, i, default) for i, default in ((2, 0), (3, 2**63 - 1)))
    start, end = 0 if start is None else start, 2**63 - 1 if end is None else end
    if c.shapes[0] == g.shape(x):
        return g.value(x)
    return g.node("Slice", x, [start], [end], [axis], [_argument(c, 4, 1)])


def _unbind(g: "GraphBuilder", c: Call) -> list[str]:
    axis = _argument(c, 1, 0, "dim") % len(g.shape(c.arguments[0]))
    return [g.node("Gather", c.arguments[0], Constant(torch.tensor(i)), axis=axis) for i in range(len(c.shapes))]


def _split(g: "GraphBuilder", c: Call) -> list[str]:
    axis = _argument(c, 2, 0, "dim") % len(c.shapes[0])
    sizes = [shape[axis] for shape in c.shapes]
    if any(isinstance(size, Size) for size in sizes):
        return g.node("Split", c.arguments[0], outputs=len(sizes), axis=axis, num_outputs=len(sizes))
    made = g.node("Split", c.arguments[0], sizes, outputs=len(sizes), axis=axis)
    return made if isinstance(made, list) else [made]


def _cat(g: "GraphBuilder", c: Call) -> str:
    return g.node("Concat", *c.arguments[0], axis=_argument(c, 1, 0, "dim") % len(c.shapes[0]))


def _stack(g: "GraphBuilder", c: Call) -> str:
    axis = _argument(c, 1, 0, "dim") % len(c.shapes[0])
    return g.node("Concat", *(g.node("Unsqueeze", x, [axis]) for x in c.arguments[0]), axis=axis)


def _squeeze(g: "GraphBuilder", c: Call) -> str:
    return g.reshape(c.arguments[0], c.shapes[0])


def _to(g: "GraphBuilder", c: Call) -> Any:
    dtype = c.options.get("dtype")
    return g.value(c.arguments[0]) if dtype is None else g.node("Cast", c.arguments[0], to=TYPES[dtype])


def _upsample(g: "GraphBuilder", c: Call) -> str:
    before, after = g.shape(c.arguments[0])[2:], c.shapes[0][2:]
    scales = Constant(torch.tensor([1.0, 1.0] + [a / b for a, b in zip(after, before, strict=True)]))
    modes: Any = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return g.node("Resize", c.arguments[0], "", scales, **modes)


def _pixel_shuffle(g: "GraphBuilder", c: Call) -> str:
    x, size = c.arguments
    shape = g.shape(x)
    if len(shape) > 4:
        x = g.node("Reshape", x, [-1, *shape[-3:]])
    return g.reshape(g.node("DepthToSpace", x, blocksize=size, mode="CRD"), c.shapes[0])


def _pixel_unshuffle(g: "GraphBuilder", c: Call) -> str:
    x, size = c.arguments
    channels, rows, columns = g.shape(x)[-3:]
    parts = g.node("Reshape", x, [-1, channels, rows // size, size, columns // size, size])
    return g.reshape(g.node("Transpose", parts, perm=[0, 1, 3, 5, 2, 4]), c.shapes[0])


def _index(g: "GraphBuilder", c: Call) -> str:
    x, indices = c.arguments
    (axis,) = [i for i, index in enumerate(indices) if index is not None]
    return g.node("Gather", x, indices[axis], axis=axis)


def _addmm(g: "GraphBuilder", c: Call) -> str:
    bias, a, b = c.arguments[:3]
    return g.node("Gemm", a, b, bias)


def _sum(kind: str) -> Translation:
    def translate(g: "GraphBuilder", c: Call) -> str:
        axes = [d % len(g.shape(c.arguments[0])) for d in c.arguments[1]]
        return g.node(kind, c.arguments[0], axes, keepdims=int(bool(_argument(c, 2, False, "keepdim"))))

    return translate


def _clamp(g: "GraphBuilder", c: Call) -> Any:
    low, high = _argument(c, 1, None, "min"), _argument(c, 2, None, "max")
    x = c.arguments[0]
    if low is not None:
        x = g.node("Max", x, float(low))
    return x if high is None else g.node("Min", x, float(high))


def _attention(g: "GraphBuilder", c: Call) -> list[str]:
    """softmax(q k^T / sqrt(d)) v."""
    q, k, v = c.arguments[:3]
    dims = len(g.shape(q))
    scale = c.options.get("scale") or g.shape(q)[-1] ** -0.5
    turned = g.node("Transpose", k, perm=[*range(dims - 2), dims - 1, dims - 2])
    weights = g.node("Softmax", g.node("MatMul", g.node("Mul", q, float(scale)), turned), axis=-1)
    return [g.node("MatMul", weights, v)]


def _same(g: "GraphBuilder", c: Call) -> str:
    return g.value(c.arguments[0])


OPERATORS: dict[str, Translation] = {
    # sums and products
    "convolution": _convolution,
    "addmm": _addmm,
    "mm": _plain("MatMul"),
    "bmm": _plain("MatMul"),
    "add": _with_alpha("Add"),
    "sub": _with_alpha("Sub"),
    "rsub": _with_alpha("Sub", swapped=True),
    "mul": _product,
    "div": _plain("Div"),
    "sum": _sum("ReduceSum"),
    "mean": _sum("ReduceMean"),
    # functions of one number
    "neg": _plain("Neg"),
    "abs": _plain("Abs"),
    "exp": _plain("Exp"),
    "sin": _plain("Sin"),
    "cos": _plain("Cos"),
    "pow": _plain("Pow"),
    "floor": _plain("Floor"),
    "sigmoid": _plain("Sigmoid"),
    "silu": lambda g, c: g.node("Mul", c.arguments[0], g.node("Sigmoid", c.arguments[0])),
    "clamp": _clamp,
    "clamp_min": _clamp,
    "_softmax": lambda g, c: g.node("Softmax", c.arguments[0], axis=c.arguments[1]),
    # comparisons
    "ge": _plain("GreaterOrEqual"),
    "gt": _plain("Greater"),
    "le": _plain("LessOrEqual"),
    "lt": _plain("Less"),
    "where": lambda g, c: g.node("Where", *c.arguments),
    # norms
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "native_group_norm": _group_norm,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    # shapes
    "view": _view,
    "_unsafe_view": _view,
    "expand": _expand,
    "full_like": _filled(None),
    "zeros_like": _filled(0.0),
    "ones_like": _filled(1.0),
    "permute": _permute,
    "transpose": _transpose,
    "t": _transpose,
    "select": _select,
    "slice": _slice,
    "unbind": _unbind,
    "split": _split,
    "split_with_sizes": _split,
    "cat": _cat,
    "stack": _stack,
    "squeeze": _squeeze,
    "unsqueeze": _squeeze,
    "upsample_nearest2d": _upsample,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    # tables, types
    "embedding": lambda g, c: g.node("Gather", *c.arguments[:2], axis=0),
    "index": _index,
    "_to_copy": _to,
    "clone": _same,
    "alias": _same,
    "detach": _same,
}
