"""What documents say is there: links, anchors, commands, options, configs, config keys, and what Python imports."""

import ast
import re
import tomllib
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from sddpm.cli.main import app
from sddpm.training import Config, load_config
from sddpm.training.config import KINDS, DistillConfig
from sddpm.training.config_files import config_names
from tests.helpers.documents import DOCUMENTS, ROOT, anchors, blocks, commands, links
from tools.site_pages import PACKAGES, command_line, config_keys

KEYS = {f"{section}.{key}" for section, field in Config.model_fields.items()
        for model in {"model": [*KINDS.values()], "distill": [DistillConfig]}.get(section, [field.annotation])
        for key in model.model_fields}  # fmt: skip


@cache
def made_pages() -> dict[Path, str]:
    """Pages of the site that are made from the code."""
    made = {f"api/{package}.md": "" for package in PACKAGES} | {"cli.md": command_line(), "config.md": config_keys()}
    return {ROOT / "docs" / "reference" / name: text for name, text in made.items()}


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def document(request) -> Path:
    return request.param


def test_links_lead_somewhere(document):
    for link in links(document.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists() or target in made_pages(), link
        if anchor:
            text = made_pages()[target] if target in made_pages() else target.read_text(encoding="utf-8")
            assert anchor in anchors(text), link


def test_commands_are_understood(document):
    verbs = get_command(app).commands  # type: ignore[attr-defined]
    for verb, *words in commands(document.read_text(encoding="utf-8")):
        assert verb in verbs
        if "..." in words:
            known = {option for parameter in verbs[verb].params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known, words
        elif words:  # else the verb's name alone
            verbs[verb].make_context(verb, [*words])
        if verb == "train" and words and words[0] in config_names():
            load_config(words[0], [value for option, value in pairwise(words) if option == "--set"])
        elif verb == "train" and words and re.fullmatch(r"[a-z0-9_]+", words[0]):
            pytest.fail(f"no config {words[0]}")


def test_configs_and_their_keys_exist(document):
    text = document.read_text(encoding="utf-8")
    for name in re.findall(r"configs/(\w+)\.yaml", text):
        assert name in config_names()
    for code in re.findall(r"`([^`\n]+)`", text):
        for key in re.findall(r"(?<![\w.])(?:data|model|diffusion|train|distill)\.[A-Za-z_]+(?![\w.(\[])", code):
            assert key in KEYS, key


def test_python_parses_and_imports_what_exists(document):
    for code in blocks(document.read_text(encoding="utf-8"), "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sddpm"):
                module = import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_pages_made_from_the_code_say_all():
    keys, verbs = (made_pages()[ROOT / "docs" / "reference" / name] for name in ("config.md", "cli.md"))
    assert set(re.findall(r"^\| `([a-z]+\.\w+)` \|", keys, re.MULTILINE)) == KEYS
    for verb, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        _, section = verbs.split(f"## sddpm {verb}\n")
        shown = section.split("\n## ")[0]
        options = {option for each in command.params for option in each.opts if option.startswith("--")}
        assert options <= set(re.findall(r"--[\w-]+", shown))


def test_readme_is_short_and_the_version_stands_in_one_place():
    readme, project, citation = (
        (ROOT / name).read_text("utf-8") for name in ("README.md", "pyproject.toml", "CITATION.cff")
    )
    assert len(readme.split()) <= 700
    version = tomllib.loads(project)["project"]["version"]
    assert yaml.safe_load(citation)["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text("utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if not re.search(rf"[ :]{re.escape(page)}$", menu, re.MULTILINE)] == []


def test_the_documents_are_found():
    names = {path.relative_to(ROOT).as_posix() for path in DOCUMENTS}
    assert {"README.md", "docs/how-to/energy.md", "docs/how-to/evaluate.md"} <= names
    found = [command for path in DOCUMENTS for command in commands(path.read_text(encoding="utf-8"))]
    assert len(found) > 130 and {"sample", "train", "pack", "evaluate", "stats"} <= {verb for verb, *_ in found}
    text = "# A `b`, c\n[x](y#z)\n```sh\nsddpm train a \\\n  --set b=1 &  # c\n```\n    sddpm unpack p\n`sddpm\ninfo`"
    assert anchors(text) == {"a-b-c"} and links(text) == ["y#z"]
    assert commands(text) == [["train", "a", "--set", "b=1"], ["unpack", "p"], ["info"]]
