"""The energy estimate as JSON and CSV."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sddpm
from sddpm.energy.account import Account
from sddpm.energy.activity import MEMBRANE_EDGES
from sddpm.energy.cost import CostModel, energy_of
from sddpm.energy.counts import LayerCount, each_step
from sddpm.energy.ledger import Ledger, firing_rate


def as_json(account: Account, command: str) -> str:
    """The whole estimate as JSON. Energies are in pJ for one evaluation of one image unless the key says otherwise."""
    ledger, twin = account.ledger, account.twin
    evaluations = ledger.evaluations_per_sample  # the ANN needs as many for a sample
    content: dict[str, Any] = {
        "command": command,
        "sddpm": sddpm.__version__,
        **_ledger_json(ledger, evaluations, account.costs),
        "cost_models": [cost.model_dump() for cost in account.costs],
        "ann_twin": _ledger_json(twin, evaluations, account.costs) if twin else None,
        "saving": {cost.name: account.saving(cost) for cost in account.costs} if twin else None,
        "layers": [_layer_json(layer, ledger.network_runs, account.costs) for layer in ledger.layers],
        "evaluations": [
            {
                "index": e.index,
                "t": e.t,
                "snn_steps": e.snn_steps,
                "firing_rate": firing_rate(e.layers),
                "energy_pj": {cost.name: energy_of(e.layers, cost).total / e.images for cost in account.costs},
            }
            for e in ledger.evaluations
        ],
    }
    if ledger.spiking:
        content["published_formula_pj"] = account.published
        content["differences"] = [asdict(difference) for difference in account.differences]
    if account.activity is not None:
        # Edges of the histograms, in units of the threshold; the first and the last bin are open.
        content["membrane_edges"] = [round(edge, 6) for edge in MEMBRANE_EDGES[1:-1].tolist()]
        content["neurons"] = {
            name: {
                "channels": len(layer.channel_spikes),
                "dead": layer.dead,
                "saturated": layer.saturated,
                "channel_rates": layer.channel_rates.tolist(),
                "membrane_histogram": layer.membrane.tolist(),
            }
            for name, layer in account.activity.layers.items()
        }
    return json.dumps(content, indent=1)


def _ledger_json(ledger: Ledger, evaluations: int, costs: Sequence[CostModel]) -> dict[str, Any]:
    return {
        "title": ledger.title,
        "parameters": ledger.parameters,
        "spiking": ledger.spiking,
        "T": ledger.T,
        "inputs": ledger.inputs,
        "solver": ledger.solver,
        "images": ledger.images,
        "evaluations_per_sample": evaluations,
        "snn_steps": ledger.snn_steps,
        "firing_rate": firing_rate(ledger.layers),
        "operations": ledger.totals(),
        "energy_pj": {cost.name: dict(ledger.per_evaluation(cost).parts) for cost in costs},
        "energy_per_sample_pj": {cost.name: ledger.per_evaluation(cost).total * evaluations for cost in costs},
    }


def _layer_json(layer: LayerCount, runs: int, costs: Sequence[CostModel]) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "shape": layer.shape,
        "parameters": layer.parameters,
        "macs": layer.macs,
        "synapses": layer.synapses,
        "binary": layer.binary,
        "rate": layer.rate,
        "rates": layer.rates,
        "sops": [n / runs for n in layer.sops],
        "ac": layer.ac / runs,
        "ac_by_rate": layer.rate * layer.dense_macs / runs if layer.binary else 0.0,
        "mac": layer.mac / runs,
        "neuron_updates": layer.updates / runs,
        "energy_pj": {cost.name: energy_of([layer], cost).total / runs for cost in costs},
    }


def as_csv(account: Account) -> str:
    """One row for each diffusion step, layer and SNN time step, for one image."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["evaluation", "t", "layer", "kind", "shape", "snn_step", "binary", "rate", "macs", "ac", "mac",
         "neuron_updates", *(f"energy_{cost.name}_pj" for cost in account.costs)]
    )  # fmt: skip
    for e in account.ledger.evaluations:
        for layer in e.layers:
            for n, step in enumerate(each_step(layer)):
                writer.writerow(
                    [e.index, e.t, layer.name, layer.kind, "x".join(map(str, layer.shape)), n + 1, int(layer.binary),
                     f"{step.rate:.6g}", layer.macs,
                     *(f"{v / e.images:.10g}" for v in (step.ac, step.mac, step.updates)),
                     *(f"{energy_of([step], cost).total / e.images:.10g}" for cost in account.costs)]
                )  # fmt: skip
    return out.getvalue()
