"""The fields shared by several views, and their updates when another model is chosen."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from sddpm.app.facts import ALL, ANY, Facts, facts_of
from sddpm.app.failures import in_a_line
from sddpm.app.settings import Settings
from sddpm.app.shelf import Shelf
from sddpm.errors import UserError

OWN = "own"
LARGE = 2**53  # larger integers are not exact as floats


@dataclass(frozen=True)
class Fields:
    """Components by their name in `Settings`; a view can leave out some."""

    parts: dict[str, Any]

    @property
    def inputs(self) -> list[Any]:
        return list(self.parts.values())

    def settings(self, values: tuple[Any, ...]) -> Settings:
        """The settings, from the values of `inputs`. Raises `UserError` for text instead of a number."""
        said = dict(zip(self.parts, values, strict=True))
        for name in ("solver", "sampler", "label"):
            said[name] = said.get(name) or None
        for name in ("steps", "x0_scale", "guidance_scale", "exit_tolerance"):
            if name in said:
                said[name] = number(self.parts[name].label, said[name])
        return Settings(**said)


def number(label: str, text: str | None) -> Any:
    """The number in a field, an int if it is whole; None if empty. Raises `UserError` for invalid text."""
    if text is None or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise UserError(f"{label}: a number is needed, not {text!r}") from error
    return int(value) if value.is_integer() and abs(value) < LARGE else value


def make_fields(
    shelf: Shelf,
    facts: Facts,
    *,
    seeds: str,
    several: bool = True,
    all_classes: bool | None = None,
    threshold: bool = True,
    early_exit: bool = False,
) -> Fields:
    """Build the fields of a view in the current column.

    Args:
        shelf: the available models.
        facts: facts about the first model.
        seeds: initial value.
        several: whether the view draws several pictures.
        all_classes: whether "all classes" is a choice; None: yes if it draws several pictures.
        threshold: whether it has a field for one threshold.
        early_exit: whether it has a field for the tolerance of early exit.
    """
    names = shelf.names()
    all_classes = several if all_classes is None else all_classes
    parts: dict[str, Any] = {"model": gr.Dropdown(names, value=names[0], label="Model", filterable=False)}
    with gr.Row():
        about = "One picture per seed, such as 0-3 or 7,100" if several else "A whole number"
        label = "Seeds" if several else "Seed"
        parts["seeds"] = gr.Textbox(seeds, label=label, info=about, max_lines=1, min_width=120)
        parts["label"] = gr.Dropdown(
            **label_choices(facts, all_classes), label="Class", info="What to draw", min_width=120
        )
    with gr.Row():
        parts["solver"] = gr.Dropdown(
            **solver_choices(facts), label="Solver", info="From noise to picture", min_width=120
        )
        parts["steps"] = gr.Textbox(
            label="Evaluations",
            info="Number of network evaluations",
            max_lines=1,
            min_width=120,
            **steps_choice(facts),
        )
    parts["sampler"] = gr.Dropdown(**sampler_choices(facts), label="Sampler", info="Samplers saved with the model")
    with gr.Row():
        if threshold:
            parts["thresholds"] = gr.Textbox(
                label="Firing threshold", info="1, or 0.99x", placeholder="own", max_lines=1, min_width=120
            )
        parts["x0_scale"] = gr.Textbox(
            label="x0 scale", info="Contrast, such as 1.02", placeholder="own", max_lines=1, min_width=120
        )
    if early_exit:
        parts["exit_tolerance"] = gr.Textbox(
            label="Early exit",
            info="Stop when the output changes by less than this, such as 0.4",
            placeholder="never",
            max_lines=1,
        )
    parts["guidance_scale"] = gr.Textbox(
        label="Guidance scale",
        info="Strength of guidance towards the class; values other than 1 double the evaluations",
        placeholder="1",
        max_lines=1,
        visible=bool(facts.classes),
    )
    fields = Fields(parts)
    follow_model(shelf, fields, all_classes)
    return fields


def follow_model(shelf: Shelf, fields: Fields, all_classes: bool) -> None:
    """Update the other fields when another model is chosen."""
    parts = fields.parts

    def chosen(name: str) -> list[Any]:
        try:
            with shelf.borrowed(name) as pipeline:
                facts = facts_of(pipeline)
        except Exception as error:
            gr.Warning(in_a_line(error))
            return [gr.skip()] * 5
        emptied: dict[str, Any] = {"value": ""} if facts.distilled else {}
        return [
            gr.update(**label_choices(facts, all_classes)),
            gr.update(visible=bool(facts.classes), value=""),
            gr.update(**solver_choices(facts)),
            gr.update(**sampler_choices(facts)),
            gr.update(**steps_choice(facts), **emptied),
        ]

    outputs = [parts[name] for name in ("label", "guidance_scale", "solver", "sampler", "steps")]
    parts["model"].change(
        chosen, parts["model"], outputs, show_progress="hidden", api_visibility="private", concurrency_limit=None
    )


def label_choices(facts: Facts, all_classes: bool) -> dict[str, Any]:
    choices = [choice for choice in facts.classes if all_classes or choice[1] != ALL]
    return {"choices": choices, "value": ANY if choices else None, "visible": bool(choices)}


def solver_choices(facts: Facts) -> dict[str, Any]:
    choices = [(f"default ({facts.solver})", ""), *((name, name) for name in facts.solvers)]
    return {"choices": choices, "value": ""}


def sampler_choices(facts: Facts) -> dict[str, Any]:
    choices = [("the model's default", ""), *((name, name) for name in [*facts.samplers, OWN])]
    return {"choices": choices, "value": "", "visible": bool(facts.samplers)}


def steps_choice(facts: Facts) -> dict[str, Any]:
    return {"placeholder": f"default ({facts.steps})", "interactive": not facts.distilled}
