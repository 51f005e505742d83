"""Help that lists what is registered. The registries are read only when help is shown, because some import torch."""

from typing import Any

from typer.core import TyperCommand


class Listing(TyperCommand):
    """A verb in whose help {metrics} and {guiding_metrics} stand for the names that are registered."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for parameter in self.params:
            if text := getattr(parameter, "help", None):
                parameter.help = with_names(text)  # pyright: ignore[reportAttributeAccessIssue]
        super().format_help(ctx, formatter)


def with_names(text: str) -> str:
    """The text of an option's help with the lists it asks for."""
    if "{metrics}" in text:
        from sddpm.evaluation.metrics import METRICS

        text = text.replace("{metrics}", ", ".join(METRICS))
    if "{guiding_metrics}" in text:
        from sddpm.guidance.settings import guiding_metrics

        text = text.replace("{guiding_metrics}", ", ".join(guiding_metrics()))
    return text
