"""The library names Python's arguments, the command line its options."""

import ast
import re
from pathlib import Path

import pytest
import typer

import sddpm
from sddpm.cli.arguments import options_of, with_options
from sddpm.cli.main import app

PACKAGE = Path(sddpm.__file__).parent
VERBS = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]


def test_arguments_become_options():
    options = {"dim": "--dim", "download": "--download", "seed": "--seed", "class_label": "--class"}
    text = "`dim` or `dim=64`, `download=True`, `first_seed`, `class_labels=cat`"
    assert with_options(text, options) == "--dim or --dim 64, --download, --seed, --class cat"
    kept = "`steps` and `sddpm moments MODEL` are no options here, nor `Dim`"
    assert with_options(kept, options) == kept


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_found_by_its_parameter(verb):
    found = options_of(VERBS[verb])
    options = {parameter.name: parameter.opts for parameter in VERBS[verb].params if parameter.opts[0].startswith("-")}
    assert found.keys() == options.keys() and {"quiet", "verbose"} <= found.keys()
    assert all(option.startswith("--") and option in options[name] for name, option in found.items())


def test_the_library_names_no_option_of_the_command_line():
    options = {option for verb in VERBS.values() for option in options_of(verb).values()} | {"--no-store"}
    assert {"--limit-reference", "--set", "--init-from"} <= options
    named = []
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] in ("cli", "app"):  # the page shows the command line that does the same
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words = re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", node.value)
                named += [f"{path.name}:{node.lineno} {word}" for word in words if word in options]
    assert named == []
