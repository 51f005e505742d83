"""An ONNX file layer by layer: each is fed the true spikes, and says what currents and spikes it makes of them."""

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper


def run(model: onnx.ModelProto, feed: dict, threads: int = 1) -> dict:
    """All outputs by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def cut_at_spikes(model: onnx.ModelProto, layers: list[str]) -> onnx.ModelProto:
    """The same graph with LAYER.spikes as inputs, and LAYER.current and the layer's own spikes LAYER.own as outputs."""
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    for node in cut.graph.node:
        for i, name in enumerate(node.output):
            if name.removesuffix(".spikes") in layers:
                node.output[i] = f"{name.removesuffix('.spikes')}.own"
    for layer in layers:
        kind = TensorProto.FLOAT
        cut.graph.input.append(helper.make_tensor_value_info(f"{layer}.spikes", kind, [None] * 5))
        for name in (f"{layer}.current", f"{layer}.own"):
            cut.graph.output.append(helper.make_tensor_value_info(name, kind, [None] * 5))
    return cut


@torch.no_grad()
def worst_layer(model: onnx.ModelProto, exact, x, t, labels=None) -> tuple[float, float]:
    """The largest error of a layer's currents (and of the prediction) in their deviations, against `exact` in float64,
    and the largest share of spikes of a layer that differ."""
    truth = {}
    hooks = [
        neuron.register_forward_hook(lambda _m, given, out, name=name: truth.__setitem__(name, (given[0], out)))
        for name, neuron in exact.neurons().items()
    ]
    expected = exact(x.double(), t, labels).sample
    for hook in hooks:
        hook.remove()
    feed = {"x_t": x.numpy(), "t": t.numpy()} | ({} if labels is None else {"class": labels.numpy()})
    feed |= {f"{name}.spikes": spikes.float().numpy() for name, (_, spikes) in truth.items()}
    found = run(cut_at_spikes(model, list(truth)), feed)
    errors = [_error(found["prediction"], expected)]
    errors += [_error(found[f"{name}.current"], current) for name, (current, _) in truth.items()]
    flips = [(found[f"{name}.own"] != spikes.numpy()).mean() for name, (_, spikes) in truth.items()]
    return max(errors), max(flips)


def _error(found: np.ndarray, expected: torch.Tensor) -> float:
    return float(np.abs(found - expected.numpy()).max() / expected.std().item())
