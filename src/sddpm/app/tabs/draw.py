"""Draw: pictures while they are denoised."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from sddpm.app import html
from sddpm.app.drawing import Drawing, draw
from sddpm.app.facts import Facts
from sddpm.app.jobs import Jobs
from sddpm.app.settings import OUT
from sddpm.app.shelf import Shelf
from sddpm.app.tabs.fields import make_fields
from sddpm.app.tabs.watching import make_controls, watch

VIEW = "draw"


def build(shelf: Shelf, jobs: Jobs, facts: Facts) -> None:
    """Build the view in the current tab."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            fields = make_fields(shelf, facts, seeds="0-3")
            controls = make_controls("Draw", jobs, VIEW)
        with gr.Column(scale=3, min_width=300):
            pictures = gr.HTML(html.empty("Pictures appear here while they are denoised."))
            with gr.Accordion("The same with the command line or Python", open=False):
                command = gr.Code(label="Command line", language="shell", interactive=False, lines=1, wrap_lines=True)
                program = gr.Code(label="Python", language="python", interactive=False, lines=1, wrap_lines=True)

    def start(request: gr.Request, *values: Any) -> Iterator[list[Any]]:
        codes: list[str] = []

        def work(report: Any) -> Drawing:
            settings = fields.settings(values)
            with shelf.borrowed(settings.model) as pipeline:
                codes[:] = [settings.command(), settings.program(pipeline)]
                return draw(pipeline, settings, report)

        for sight in watch(jobs, request, VIEW, work, progress, result):
            yield [*sight.controls, shown(sight.item, sight.finished), *(codes if sight.finished else [gr.skip()] * 2)]

    gr.on(
        [controls.start.click, fields.parts["seeds"].submit],
        start,
        fields.inputs,
        [*controls, pictures, command, program],
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=None,
    )


def progress(drawing: Drawing) -> tuple[int, int]:
    return drawing.done, drawing.total


def result(drawing: Drawing, seconds: float) -> str:
    pictures = html.several(len(drawing.captions), "picture")
    return f"{pictures}, {html.several(drawing.total, 'evaluation')}, {seconds:.1f} s"


def shown(drawing: Drawing | None, finished: bool) -> Any:
    if drawing is None:
        return gr.skip()
    pictures = html.gallery(drawing.pictures, drawing.captions)
    return pictures + html.save_link(drawing.sheet(), OUT) if finished else pictures
