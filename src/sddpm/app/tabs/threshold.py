"""Threshold: the same seeds at several firing thresholds."""

from collections.abc import Iterator
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr

from sddpm.app import html
from sddpm.app.comparison import Comparison, choices, compare
from sddpm.app.facts import Facts
from sddpm.app.jobs import Jobs
from sddpm.app.settings import Settings
from sddpm.app.shelf import Shelf
from sddpm.app.tabs.fields import make_fields
from sddpm.app.tabs.watching import make_controls, watch

VIEW = "threshold"
ABOUT = (
    "Threshold guidance (SDDPM, section 4.3) samples with firing thresholds other than the trained ones. With lower "
    "thresholds neurons fire more."
)


def build(shelf: Shelf, jobs: Jobs, facts: Facts) -> None:
    """Build the view in the current tab."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            gr.HTML(f"<p>{ABOUT}</p>")
            thresholds = gr.Textbox(
                "0.9x, 0.98x, 1x, 1.02x, 1.1x",
                label="Thresholds",
                info="One row per threshold; 0.98x is 0.98 times the threshold of each layer",
                max_lines=1,
            )
            fields = make_fields(shelf, facts, seeds="0-3", threshold=False, all_classes=False)
            controls = make_controls("Compare", jobs, VIEW)
        with gr.Column(scale=3, min_width=300):
            seen = gr.HTML(html.empty("Pictures of the same seeds appear here for each threshold."))
            with gr.Accordion("The same with the command line", open=False):
                commands = gr.Code(label="Command lines", language="shell", interactive=False, lines=1, wrap_lines=True)

    def start(request: gr.Request, text: str, *values: Any) -> Iterator[list[Any]]:
        lines: list[str] = []

        def work(report: Any) -> Comparison:
            settings = fields.settings(values)
            with shelf.borrowed(settings.model) as pipeline:
                lines[:] = command_lines(settings, text)
                return compare(pipeline, settings, text, report)

        for sight in watch(jobs, request, VIEW, work, lambda found: (found.done, found.total), result):
            code = "\n".join(lines) if sight.finished else gr.skip()
            yield [*sight.controls, show(sight.item, sight.finished), code]

    gr.on(
        [controls.start.click, thresholds.submit, fields.parts["seeds"].submit],
        start,
        [thresholds, *fields.inputs],
        [*controls, seen, commands],
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=None,
    )


def command_lines(settings: Settings, thresholds: str) -> list[str]:
    """A command for each threshold."""
    return [
        replace(settings, thresholds=name).command(f"threshold-{number}.png")
        for number, name in enumerate(choices(thresholds), 1)
    ]


def result(found: Comparison, seconds: float) -> str:
    return f"{html.several(len(found.names), 'threshold')}, {html.several(found.total, 'evaluation')}, {seconds:.1f} s"


def show(found: Comparison | None, finished: bool) -> Any:
    """A row of pictures for each threshold."""
    if found is None:
        return gr.skip()
    rows = ""
    for name, drawing in zip(found.names, found.drawings, strict=False):
        pictures = "".join(
            f'<img src="{html.png_url(html.pixels(picture))}" alt="Picture of {escape(caption)} at {escape(name)}">'
            for picture, caption in zip(drawing.pictures, drawing.captions, strict=True)
        )
        rows += f"<span>{escape(name)}</span>{pictures}"
    count = len(found.drawings[0].captions)
    grid = f'<div class="rows" style="--columns:{count}">{rows}</div>'
    return grid + html.save_link(found.sheet(), "thresholds.png") if finished else grid
