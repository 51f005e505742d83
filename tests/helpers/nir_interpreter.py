"""NIR's specification, read literally, for the nodes that our files have: Input, Output, Conv2d and IF.

Inputs of a node add up. IF over one time step of dt: v += dt r I; a spike if v > v_threshold; then v = v_reset. In
float64, but for thresholds, which are what the file says.
"""

from graphlib import TopologicalSorter

import nir
import torch
import torch.nn.functional as F


def run(graph: nir.NIRGraph, inputs: torch.Tensor, T: int, dt: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Outputs [T, B, ...] and the spikes of every IF node [T, B, ...], of the same inputs [B, C, H, W] for T steps."""
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for before, after in graph.edges:
        sources[after].append(before)
    order = [*TopologicalSorter(sources).static_order()]
    membranes: dict[str, torch.Tensor] = {}
    outputs, spikes = [], {name: [] for name, node in graph.nodes.items() if isinstance(node, nir.IF)}
    for _ in range(T):
        values: dict[str, torch.Tensor] = {}
        for name in order:
            node = graph.nodes[name]
            x = inputs if isinstance(node, nir.Input) else sum(values[source] for source in sources[name])
            if isinstance(node, nir.Conv2d):
                weight, bias = (torch.from_numpy(a).to(x) for a in (node.weight, node.bias))
                x = F.conv2d(
                    x, weight, bias, node.stride, tuple(map(int, node.padding)), node.dilation, int(node.groups)
                )
            elif isinstance(node, nir.IF):
                r, threshold, reset = (torch.from_numpy(a).to(x) for a in (node.r, node.v_threshold, node.v_reset))
                v = membranes.get(name, torch.zeros_like(x)) + dt * r * x
                x = (v > threshold).to(x)
                membranes[name] = torch.where(x > 0, reset.expand_as(v), v)
                spikes[name].append(x)
            else:
                assert isinstance(node, nir.Input | nir.Output), f"this interpreter has no {type(node).__name__}"
            values[name] = x
        outputs.append(values["output"])
    return torch.stack(outputs), {name: torch.stack(found) for name, found in spikes.items()}
