"""The page with its views as tabs."""

from collections.abc import Callable
from pathlib import Path

import gradio as gr
from gradio.themes import Base

from sddpm.app.facts import Facts, facts_of
from sddpm.app.jobs import Jobs
from sddpm.app.shelf import Shelf
from sddpm.app.tabs import draw, energy, spikes, threshold

CSS = Path(__file__).with_name("page.css")
TABS: dict[str, Callable[[Shelf, Jobs, Facts], None]] = {
    "Draw": draw.build,
    "Spikes": spikes.build,
    "Energy": energy.build,
    "Threshold": threshold.build,
}
"""The views by title, in order."""


def make_page(shelf: Shelf, jobs: Jobs) -> gr.Blocks:
    """Make the page for these models. Raises `UserError` if the first of them cannot be loaded."""
    with shelf.borrowed(shelf.names()[0]) as pipeline:
        facts = facts_of(pipeline)
    with gr.Blocks(title="sddpm", analytics_enabled=False) as page:
        gr.HTML("<h1>sddpm</h1><p>Spiking diffusion models: pictures from spikes.</p>", elem_id="title")
        with gr.Tabs():
            for name, build in TABS.items():
                with gr.Tab(name):
                    build(shelf, jobs, facts)

        def leave(request: gr.Request) -> None:
            jobs.stop(str(request.session_hash))

        page.unload(leave)
    return page


def theme() -> Base:
    """Colours, and the system's fonts, so that nothing is downloaded."""
    fonts = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    base = Base(primary_hue="orange", neutral_hue="zinc", font=fonts[0], font_mono=fonts[1])
    return base.set(  # the defaults have too little contrast for some readers
        body_text_color_subdued="*neutral_600",
        block_info_text_color="*neutral_600",
        block_label_text_color="*neutral_800",
        block_title_text_color="*neutral_800",
        input_placeholder_color="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_text_color="white",
    )
