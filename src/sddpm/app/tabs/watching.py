"""The display of running work in every view: a line, a progress bar, two buttons, and the current result."""

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import gradio as gr

from sddpm.app import html
from sddpm.app.failures import in_a_line
from sddpm.app.jobs import Jobs, Stopped

T = TypeVar("T")


class Controls(NamedTuple):
    """The start button, the stop button, and the line below them."""

    start: gr.Button
    stop: gr.Button
    status: gr.HTML


class Sight(NamedTuple):
    """The current display: updates of `Controls`, the newest report (None if there is none), and whether it is the
    result."""

    controls: list[Any]
    item: Any
    finished: bool


def make_controls(start: str, jobs: Jobs, view: str) -> Controls:
    """Build the buttons and the line in the current column; the second button stops the view's work."""
    with gr.Row():
        controls = Controls(
            gr.Button(start, variant="primary", min_width=80),
            gr.Button("Stop", interactive=False, min_width=80),
            gr.HTML(html.status("Ready"), render=False),
        )
    controls.status.render()

    def stop(request: gr.Request) -> None:
        jobs.stop(str(request.session_hash), view)

    controls.stop.click(stop, None, None, queue=False, api_visibility="private")
    return controls


def watch(
    jobs: Jobs,
    request: gr.Request,
    view: str,
    work: Callable[[Callable[[T], None]], T],
    progress: Callable[[T], tuple[int, int]],
    result: Callable[[T, float], str],
) -> Iterator[Sight]:
    """Run the work of a view and show its progress.

    Args:
        work: as in `Jobs.follow`.
        progress: completed and total evaluations of a report.
        result: the final line, from the result and its time in seconds.
    """
    yield Sight(_controls(html.status("Starting"), True), None, False)
    begun, last = perf_counter(), None
    try:
        for item, finished in jobs.follow(str(request.session_hash), view, work):
            if item is None:
                yield Sight(_controls(html.status("Waiting for the work of other visitors"), True), None, False)
                continue
            last, seconds = item, perf_counter() - begun
            done, total = progress(item)
            if finished:
                yield Sight(_controls(html.status(result(item, seconds)), False), item, True)
            else:
                line = html.status(f"Evaluation {done} of {total}, {seconds:.1f} s", done, total)
                yield Sight(_controls(line, True), item, False)
    except Stopped:
        where = "" if last is None else " after {} of {} evaluations".format(*progress(last))
        yield Sight(_controls(html.status(f"Stopped{where}"), False), None, False)
    except Exception as error:
        yield Sight(_controls(html.status(in_a_line(error), failed=True), False), None, False)


def _controls(line: str, running: bool) -> list[Any]:
    return [gr.update(interactive=not running), gr.update(interactive=running), line]
