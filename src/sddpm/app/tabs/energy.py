"""Energy: the energy of a picture after every evaluation, compared with the ANN."""

from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr

from sddpm.app import charts, html
from sddpm.app.consumption import Consumption, consume
from sddpm.app.facts import Facts
from sddpm.app.jobs import Jobs
from sddpm.app.shelf import Shelf
from sddpm.app.tabs.fields import make_fields
from sddpm.app.tabs.watching import make_controls, watch
from sddpm.energy import CostModel, cost_model_names, load_cost_model
from sddpm.energy.report import joules

VIEW = "energy"
MOST_RUNS = 8
MILLIJOULE = 1e9  # in pJ


def build(shelf: Shelf, jobs: Jobs, facts: Facts) -> None:
    """Build the view in the current tab."""
    kept = gr.State([])
    names = cost_model_names()
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            fields = make_fields(shelf, facts, seeds="0", several=False, early_exit=True)
            controls = make_controls("Measure", jobs, VIEW)
        with gr.Column(scale=3, min_width=300):
            cost = gr.Dropdown(
                names, value=names[0], label="Cost model", info="Energy of an operation", filterable=False
            )
            seen = gr.HTML(html.empty("Measure a picture to see its energy. Several runs are compared in a table."))

    def start(request: gr.Request, before: list[Consumption], name: str, *values: Any) -> Iterator[list[Any]]:
        def work(report: Any) -> Consumption:
            settings = fields.settings(values)
            with shelf.borrowed(settings.model) as pipeline:
                return consume(pipeline, settings, report)

        for sight in watch(jobs, request, VIEW, work, lambda made: (len(made.evaluations), made.total), result):
            runs = before if sight.item is None else [*before, sight.item][-MOST_RUNS:]
            shown = gr.skip() if sight.item is None else show(runs, name, sight.finished)
            yield [*sight.controls, runs if sight.finished else gr.skip(), shown]

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
    gr.on(
        [controls.start.click, fields.parts["seeds"].submit],
        start,
        [kept, cost, *fields.inputs],
        [*controls, kept, seen],
        **quiet,
    )
    cost.change(lambda runs, name: show(runs, name) if runs else gr.skip(), [kept, cost], seen, **quiet)


def result(made: Consumption, seconds: float) -> str:
    return f"{made.caption}: {html.several(made.total, 'evaluation')}, {seconds:.1f} s"


def show(runs: list[Consumption], name: str, finished: bool = True) -> str:
    """The last run in numbers and charts, and, when it has ended, all runs in a table."""
    cost, made = load_cost_model(name), runs[-1]
    return "".join(
        (
            f"<p>{escape(cost.name)}: {escape(cost.description)}.</p>",
            bill(made, cost),
            '<div class="charts">',
            *(figures(made, cost) if finished else [growth(made, cost)]),
            "</div>",
            table(runs, cost) if finished else "",
        )
    )


def bill(made: Consumption, cost: CostModel) -> str:
    """The picture and its energy."""
    saved = made.saving(cost)
    numbers = {
        "Spiking": in_units(made.growth(cost)[-1]),
        "Without spikes": in_units(made.twin_growth(cost)[-1]),
    }
    if saved is not None:
        numbers["Spikes cost"] = f"{abs(saved):.0%} {'less' if saved >= 0 else 'more'}"
    numbers["SNN time steps"] = f"{made.snn_steps:.3g} of {made.T}"
    rows = "".join(f"<div><dt>{name}</dt><dd>{number}</dd></div>" for name, number in numbers.items())
    return f'<div class="bill">{html.gallery(made.picture[None], [made.caption])}<dl>{rows}</dl></div>'


def growth(made: Consumption, cost: CostModel) -> str:
    spiking, twin = made.growth(cost), made.twin_growth(cost)
    in_mj = [pj / MILLIJOULE for pj in spiking], [pj / MILLIJOULE for pj in twin]
    return charts.chart(
        charts.growth(in_mj[0], in_mj[1], made.total, "mJ"),
        "Energy of this picture after every evaluation",
        f"After {len(spiking)} evaluations {in_units(spiking[-1])}, without spikes {in_units(twin[-1])}",
    )


def figures(made: Consumption, cost: CostModel) -> list[str]:
    steps, twin = made.by_snn_step(cost), made.twin_growth(cost)[-1]
    every = [load_cost_model(each) for each in cost_model_names()]
    savings = [(each.name, made.saving(each)) for each in every]
    shares = {each: 1 - saving for each, saving in savings if saving is not None}
    return [
        growth(made, cost),
        charts.chart(
            charts.by_step([pj / MILLIJOULE for pj in steps], twin / MILLIJOULE, "mJ"),
            "Energy if every evaluation ended after this many SNN time steps",
            f"From {in_units(steps[0])} after the first to {in_units(steps[-1])} after all of them",
        ),
        charts.chart(
            charts.shares(list(shares), list(shares.values())),
            "By cost model",
            "; ".join(f"{each}: {share:.0%}" for each, share in shares.items()),
        ),
    ]


def table(runs: list[Consumption], cost: CostModel) -> str:
    """A table with a row for each run, the newest first."""
    head = ("Picture", "Model", "Evaluations", "Early exit", "SNN steps", "Energy", "Saved")
    rows = ""
    for made in reversed(runs):
        tolerance = made.settings.exit_tolerance
        cells = (
            f'<img src="{html.png_url(html.pixels(made.picture))}" alt="Picture of {escape(made.caption)}">',
            escape(made.settings.model),
            str(len(made.evaluations)),
            "no" if tolerance is None else f"{tolerance:g}",
            f"{made.snn_steps:.3g} of {made.T}",
            in_units(made.growth(cost)[-1]),
            "" if (saved := made.saving(cost)) is None else f"{saved:.0%}",
        )
        rows += f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    return (
        f"<h3>Runs, by the cost model {escape(cost.name)}</h3>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Runs">'
        f'<table class="runs"><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def in_units(picojoules: float) -> str:
    """An energy with its unit: 145.9 µJ."""
    return joules(picojoules).replace("uJ", "\N{MICRO SIGN}J")
