"""The report as text and tables."""

from collections.abc import Iterable, Sequence

from sddpm.energy.account import Account
from sddpm.energy.activity import Activity
from sddpm.energy.cost import CostModel, energy_of
from sddpm.energy.counts import LayerCount, NeuronCount
from sddpm.energy.ledger import Ledger, firing_rate
from sddpm.energy.published import PublishedRow

NOT_COUNTED = (
    "Not counted: additions of residuals, of folded batch norms and of the readout, SiLU if the wiring has it, "
    "scaling by TSM (one multiplication an output and time step), control, leakage, spike routing, and the solver's "
    "arithmetic."
)
SHOWN_DIFFERENCES = 8


def joules(picojoules: float) -> str:
    """An energy with its unit: 145.9 uJ."""
    for factor, unit in ((1e12, "J"), (1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ")):
        if abs(picojoules) >= factor:
            return f"{picojoules / factor:.4g} {unit}"
    return f"{picojoules:.4g} pJ"


def count(number: float) -> str:
    """A number of operations: 78.74 M."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= factor:
            return f"{number / factor:.4g}{unit}"
    return f"{number:.4g}"


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Aligned columns: the first left-aligned, the others right-aligned."""
    rows = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def heading(ledger: Ledger) -> str:
    kind = f"T = {ledger.T}" if ledger.spiking else "no spikes: an ANN"
    early = f", {ledger.snn_steps:.3g} of {ledger.T} SNN time steps on average" if ledger.snn_steps < ledger.T else ""
    return (
        f"{ledger.title}: {ledger.parameters:,} parameters, {kind}; {ledger.inputs}, {ledger.solver} "
        f"({ledger.evaluations_per_sample} evaluations){early}"
    )


def operations_table(account: Account) -> list[list[str]]:
    """A header and rows with the operations of one evaluation of one image."""
    ledgers = [ledger for ledger in (account.ledger, account.twin) if ledger is not None]
    totals = [ledger.totals() for ledger in ledgers]
    rates = [f"{firing_rate(ledger.layers):.4f}" if ledger.spiking else "" for ledger in ledgers]
    binary = [_spiking_share(ledger.layers) for ledger in ledgers]
    return [
        ["one evaluation of one image", *(["this model", "ANN twin"][: len(ledgers)])],
        ["parameters", *(f"{ledger.parameters:,}" for ledger in ledgers)],
        ["layers with spikes as input", *binary],
        ["firing rate", *rates],
        ["dense MACs, all time steps", *(count(t["dense_macs"]) for t in totals)],
        ["accumulates (AC), counted", *(count(t["ac"]) for t in totals)],
        ["AC by rate x T x MACs", *(count(t["ac_by_rate"]) for t in totals)],
        ["multiply-accumulates (MAC)", *(count(t["mac"]) for t in totals)],
        ["neuron updates", *(count(t["neuron_updates"]) for t in totals)],
    ]


def _spiking_share(layers: Sequence[LayerCount]) -> str:
    synaptic = [layer for layer in layers if layer.macs]
    return f"{sum(layer.binary for layer in synaptic)} of {len(synaptic)}"


def energy_table(account: Account) -> list[list[str]]:
    """A header and rows with the energy by cost model."""
    ledger, twin = account.ledger, account.twin
    header = ["energy", "one evaluation", "one sample"]
    rows = [[*header, "ANN twin, evaluation", "ANN twin, sample", "saving"] if twin else header]
    for cost in account.costs:
        row = [cost.name, joules(ledger.per_evaluation(cost).total), joules(ledger.per_sample(cost).total)]
        if twin:
            once = twin.per_evaluation(cost).total
            row += [joules(once), joules(once * ledger.evaluations_per_sample), percent(account.saving(cost))]
        rows.append(row)
    return rows


def time_table(ledger: Ledger) -> list[list[str]]:
    """Rows of firing rate and accumulates by SNN time step, for one evaluation of one image."""
    layers = ledger.layers
    rates, accumulates = [], []
    for n in range(ledger.T):
        neurons = [layer for layer in layers if isinstance(layer, NeuronCount) and n < len(layer.images)]
        possible = sum(layer.neurons * layer.images[n] for layer in neurons)
        rates.append(f"{sum(layer.fired[n] for layer in neurons) / possible:.4f}" if possible else "")
        operations = sum(layer.sops[n] for layer in layers if n < len(layer.images))
        accumulates.append(count(operations / ledger.network_runs))
    return [
        ["SNN time step", *(str(n + 1) for n in range(ledger.T))],
        ["firing rate", *rates],
        ["accumulates", *accumulates],
    ]


def diffusion_table(ledger: Ledger, cost: CostModel, columns: int = 7) -> list[list[str]]:
    """Rows of firing rate and energy at some diffusion steps, evenly spaced."""
    last = len(ledger.evaluations) - 1
    chosen = [ledger.evaluations[i] for i in sorted({round(k * last / (columns - 1)) for k in range(columns)})]
    return [
        ["diffusion step", *(str(e.t) for e in chosen)],
        ["firing rate", *(f"{firing_rate(e.layers):.4f}" for e in chosen)],
        [f"energy, {cost.name}", *(joules(energy_of(e.layers, cost).total / e.images) for e in chosen)],
    ]


def layer_table(account: Account) -> list[list[str]]:
    """A header and one row per layer, for one evaluation of one image."""
    runs, cost = account.ledger.network_runs, account.costs[0]
    rows = [["layer", "output", "MACs", "input", "rate", "AC", "AC by rate", "MAC", "updates", f"energy {cost.name}"]]
    for layer in account.ledger.layers:
        shape = "x".join(map(str, layer.shape))
        kind = "neurons" if layer.kind == "neuron" else "spikes" if layer.binary else "real"
        by_rate = layer.rate * layer.dense_macs / runs if layer.binary else 0
        numbers = [count(n) if n else "" for n in (layer.ac / runs, by_rate, layer.mac / runs, layer.updates / runs)]
        macs = count(layer.macs) if layer.macs else ""
        energy = joules(energy_of([layer], cost).total / runs)
        rows.append([layer.name, shape, macs, kind, f"{layer.rate:.4f}", *numbers, energy])
    return rows


def difference_lines(account: Account) -> list[str]:
    """The published formula compared with the counts, and the layers with the largest differences."""
    cost, differences = account.costs[0], account.differences
    honest = sum(d.honest for d in differences)
    share = f" ({honest / account.published - 1:+.1%})" if account.published else ""
    lines = [
        f"Published formula ({cost.mac_pj:g} pJ x MACs of the first convolution + {cost.ac_pj:g} pJ x rate x T x MACs "
        f"of the others): {joules(account.published)} per evaluation",
        f"counted operations: {joules(honest)}{share}; largest differences:",
    ]
    shown = differences[:SHOWN_DIFFERENCES]
    width = max(len(d.name) for d in shown)
    for d in shown:
        delta = d.honest - d.published
        lines.append(f"  {d.name:{width}}  {'+' if delta >= 0 else '-'}{joules(abs(delta)):>9}  {d.reason}")
    rest = sum(d.honest - d.published for d in differences[SHOWN_DIFFERENCES:])
    lines.append(f"  {'all others':{width}}  {'+' if rest >= 0 else '-'}{joules(abs(rest)):>9}")
    return lines


def as_text(account: Account, layers: bool = False) -> str:
    """The account for a terminal."""
    ledger = account.ledger
    parts = [heading(ledger), table(operations_table(account)), table(energy_table(account))]
    if ledger.spiking:
        parts += [table(time_table(ledger)), table(diffusion_table(ledger, account.costs[0]))]
        parts += ["\n".join(difference_lines(account))]
    if account.activity is not None:
        parts.append(activity_line(account.activity))
    if layers:
        parts.append(table(layer_table(account)))
    return "\n\n".join(parts)


def activity_line(activity: Activity) -> str:
    """Silent layers, dead and saturated channels, in one sentence."""
    channels = sum(len(layer.channel_spikes) for layer in activity.layers.values())
    dead = sum(layer.dead for layer in activity.layers.values())
    saturated = sum(layer.saturated for layer in activity.layers.values())
    return (
        f"Silent layers: {', '.join(activity.silent) or 'none'}. Of {channels:,} channels {dead:,} never fired and "
        f"{saturated:,} (almost) always."
    )


def published_text(rows: Sequence[PublishedRow]) -> str:
    """The published energies compared with the cost of their networks."""
    header = ["one evaluation, CIFAR-10", "published", "honest", "parameters", "GMAC a step", "implied rate", "saving"]
    ann = next(row for row in rows if row.rate is None)
    body = [
        [
            row.name,
            f"{row.published:.2f} mJ",
            f"{row.honest:.2f} mJ",
            f"{row.parameters:,}",
            f"{row.gmac:.3f}",
            "" if row.rate is None else f"{row.rate:.3f}",
            "" if row.rate is None
            else f"{1 - row.published / ann.published:.0%} -> {1 - row.honest / ann.honest:.0%}",
        ]
        for row in rows
    ]  # fmt: skip
    return table([header, *body])
