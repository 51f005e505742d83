"""Translates argument names in the library's messages to the options of a verb: `steps=20` becomes --steps 20."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import typer
from typer.core import TyperGroup

from sddpm.errors import UserError

_ARGUMENT = re.compile(r"`([a-z_]\w*)(?:=([^`]*))?`")
# Arguments with a different option name. They are not translated for a verb without such an option.
_OTHER_NAMES = {
    "class_labels": "class_label",
    "first_seed": "seed",
    "high": "range_",
    "low": "range_",
    "metrics": "metric",
    "num_inference_steps": "steps",
    "path": "data",
    "refinements": "refine",
    "run_dir": "out",
}


class Verbs(TyperGroup):
    """The verbs of the command line; their error messages name their options."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            verb = self.commands.get(ctx.invoked_subcommand or "")
            raise UserError(with_options(str(error), options_of(verb))) from error


def in_options(ctx: typer.Context, text: str) -> str:
    """Translate a line of the library, such as a result, for the running verb."""
    return with_options(text, options_of(ctx.command))


def options_of(verb: Any) -> dict[str, str]:
    """{parameter: its option, such as --class} for a command."""
    if verb is None:
        return {}
    return {p.name: _longest(p.opts) for p in verb.params if any(each.startswith("--") for each in p.opts)}


def with_options(text: str, options: Mapping[str, str]) -> str:
    """Replace `name`, `name=value` and `name=True` by --name, --name value and --name if there is such an option; other
    words in backticks are not changed."""

    def translated(found: re.Match[str]) -> str:
        name, value = found.groups()
        option = options.get(name) or options.get(_OTHER_NAMES.get(name, ""))
        if option is None:
            return found.group()
        return option if value in (None, "True") else f"{option} {value}"

    return _ARGUMENT.sub(translated, text)


def _longest(names: Iterable[str]) -> str:
    return max(names, key=len)
