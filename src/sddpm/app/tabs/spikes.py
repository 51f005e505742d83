"""Spikes: the denoising of one picture, and the activity of neurons at every evaluation."""

from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr
import torch

from sddpm.app import charts, html
from sddpm.app.facts import Facts
from sddpm.app.failures import in_a_line
from sddpm.app.jobs import Jobs
from sddpm.app.shelf import Shelf
from sddpm.app.tabs.fields import make_fields
from sddpm.app.tabs.watching import make_controls, watch
from sddpm.app.traces import LayerView, Trace, look, trace
from sddpm.data import to_uint8
from sddpm.figures.grid import image_grid

VIEW = "spikes"
CHANNELS = 8


def build(shelf: Shelf, jobs: Jobs, facts: Facts) -> None:
    """Build the view in the current tab."""
    kept = gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            fields = make_fields(shelf, facts, seeds="0", several=False)
            controls = make_controls("Trace", jobs, VIEW)
        with gr.Column(scale=3, min_width=300):
            slider = gr.Slider(
                1, 2, 1, step=1, label="Evaluation", info="From noise to picture", interactive=False, buttons=[]
            )
            layer = gr.Dropdown(facts.layers, label="Layer", filterable=False, interactive=bool(facts.layers))
            seen = gr.HTML(html.empty("Trace a picture to see the spikes of its evaluations."))

    def start(request: gr.Request, chosen: str | None, *values: Any) -> Iterator[list[Any]]:
        def work(report: Any) -> Trace:
            settings = fields.settings(values)
            with shelf.borrowed(settings.model) as pipeline:
                return trace(pipeline, settings, report)

        for sight in watch(jobs, request, VIEW, work, lambda traced: (len(traced.timesteps), traced.total), result):
            if not sight.finished:
                on_the_way = (
                    gr.skip() if sight.item is None else html.gallery(sight.item.picture[None], ["in progress"])
                )
                yield [*sight.controls, gr.skip(), gr.skip(), gr.skip(), on_the_way]
                continue
            traced: Trace = sight.item
            name = chosen if chosen in traced.layers else traced.layers[len(traced.layers) // 2]
            last = len(traced.timesteps)
            place = gr.update(minimum=1, maximum=max(last, 2), value=last, interactive=last > 1)
            yield [
                *sight.controls,
                traced,
                place,
                gr.update(choices=traced.layers, value=name, interactive=True),
                show(shelf, traced, last, name),
            ]

    def move(traced: Trace | None, place: int, name: str | None) -> Any:
        return gr.skip() if traced is None or name not in traced.layers else show(shelf, traced, place, name)

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
    gr.on(
        [controls.start.click, fields.parts["seeds"].submit],
        start,
        [layer, *fields.inputs],
        [*controls, kept, slider, layer, seen],
        **quiet,
    )
    gr.on([slider.change, layer.input], move, [kept, slider, layer], seen, trigger_mode="always_last", **quiet)


def result(traced: Trace, seconds: float) -> str:
    return f"{traced.caption}: {html.several(traced.total, 'evaluation')}, {seconds:.1f} s"


def show(shelf: Shelf, traced: Trace, place: int, layer: str) -> str:
    """All results for one layer at one evaluation (numbered from 1)."""
    index = max(0, min(int(place), len(traced.timesteps)) - 1)
    try:
        with shelf.borrowed(traced.settings.model) as pipeline:
            view = look(pipeline, traced, index, layer)
    except Exception as error:
        return html.status(in_a_line(error), failed=True)
    pictures = torch.stack([traced.picture, traced.x0[index], to_uint8(traced.x_t[index][0])])
    where = f"t = {traced.timesteps[index]}"
    names = [f"picture of {traced.caption}", f"estimate at {where}", f"with noise, {where}"]
    return "".join(
        (
            f'<div class="trio">{html.gallery(pictures, names)}</div>',
            '<div class="charts">',
            charts.chart(
                charts.rates(traced.timesteps, traced.mean_rates, index),
                f"Mean firing rate of the layers: {traced.mean_rates[index]:.1%} at evaluation {index + 1}",
                f"Mean firing rate at each of {len(traced.timesteps)} evaluations",
            ),
            charts.chart(
                charts.membranes(view.membranes.flatten().double().numpy()),
                f"Membranes of {layer}: {float((view.membranes >= 1).double().mean()):.1%} reach the threshold",
                f"Histogram of the membranes of {layer} before firing, in units of the threshold",
            ),
            charts.chart(
                charts.raster(view.raster.numpy()),
                f"Spikes of {len(view.raster)} neurons of {layer}",
                f"Raster of {int(view.raster.sum())} spikes over {len(view.spikes)} SNN time steps",
            ),
            feature_maps(view, layer),
            "</div>",
            layer_rates(traced.layers, traced.rates[index], layer),
        )
    )


def feature_maps(view: LayerView, layer: str) -> str:
    """The channels that fire most, at each SNN time step; empty for layers without feature maps."""
    if view.spikes.ndim != 4:
        return ""
    chosen = view.busiest(CHANNELS)
    maps = view.spikes[:, chosen].flatten(0, 1)[:, None].to(torch.uint8) * 255
    picture = image_grid(maps, columns=len(chosen), scale=1, padding=1)
    listed = ", ".join(str(int(channel)) for channel in chosen)
    return (
        f'<figure class="chart"><figcaption>Spikes as maps: channels {listed} to the right, SNN time steps down'
        f'</figcaption><img class="pixels" src="{html.png_url(picture)}" alt="Spike maps of {escape(layer)}"></figure>'
    )


def layer_rates(layers: list[str], rates: list[float], chosen: str) -> str:
    """A list with a bar for each layer."""
    top = max(*rates, 1e-9)
    rows = "".join(
        f'<li{" class=chosen" if name == chosen else ""}><span class="name">{escape(name)}</span>'
        f'<span class="track"><span class="bar" style="width:{100 * rate / top:.1f}%"></span></span>'
        f'<span class="value">{rate:.1%}</span></li>'
        for name, rate in zip(layers, rates, strict=True)
    )
    return f'<h3>Firing rates of all layers at this evaluation</h3><ul class="layers">{rows}</ul>'
