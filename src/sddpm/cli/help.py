"""Help of verbs: printed unchanged, with lists of names filled in."""

import copy
from typing import Any

from typer.core import TyperCommand


class Verb(TyperCommand):
    """A verb whose help keeps its [brackets], and in which {metrics} and {guiding_metrics} are replaced by the
    registered names. The registries are read only when help is shown, because some import torch."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        shown = copy.copy(self)
        shown.help = self.as_written(self.help)
        shown.params = [copy.copy(parameter) for parameter in self.params]
        for parameter in shown.params:
            if text := getattr(parameter, "help", None):
                parameter.help = self.as_written(text)  # pyright: ignore[reportAttributeAccessIssue]
        super(Verb, shown).format_help(ctx, formatter)

    def as_written(self, text: str | None) -> str:
        """The text with the names of registries, escaped so that no [word] is taken as a style."""
        named = with_names(text or "")
        if self.rich_markup_mode != "rich":
            return named
        from rich.markup import escape

        return escape(named)


def with_names(text: str) -> str:
    """The text of an option's help with its lists filled in."""
    if "{metrics}" in text:
        from sddpm.evaluation.metrics import METRICS

        text = text.replace("{metrics}", ", ".join(METRICS))
    if "{guiding_metrics}" in text:
        from sddpm.guidance.settings import guiding_metrics

        text = text.replace("{guiding_metrics}", ", ".join(guiding_metrics()))
    return text
