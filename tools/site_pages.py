"""Pages of the site that are generated during the build, as hooks of mkdocs: command line and config keys from the
code, the API's lists, CHANGELOG and CONTRIBUTING, and a page for each file of the repository that a page links to."""

import os
import posixpath
import re
import types
from collections.abc import Iterator
from importlib import import_module
from inspect import isclass, isfunction
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?((?: \"[^\"]*\")?\))")
FENCE = re.compile(r"^( *)(```+).*?^\1\2$", re.DOTALL | re.MULTILINE)
AT_THE_ROOT = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}
LANGUAGES = {".py": "python", ".sh": "sh", ".yaml": "yaml", ".cpp": "cpp", ".h": "cpp", ".json": "json"}
PACKAGES = {
    "pipelines": "A picture from a seed",
    "models": "The networks",
    "neurons": "Neurons and surrogates",
    "diffusion": "Schedules, objectives and solvers",
    "data": "Data sets",
    "training": "Training",
    "evaluation": "Metrics and protocols",
    "guidance": "Searches for thresholds, x0_scale and samplers",
    "energy": "Operations and cost models",
    "conversion": "Checkpoints of the reference code",
    "export": "ONNX, NIR and the page",
    "figures": "Pictures",
    "release": "Released models",
    "moving": "Packed runs",
}


def command_line() -> str:
    """Every verb with its arguments and options, as in its help."""
    from typer.main import get_command

    from sddpm.cli.help import with_names
    from sddpm.cli.main import app

    lines = ["# Command line", "", "Made from the help texts: `sddpm VERB --help` shows the same.", ""]
    for verb, command in sorted(get_command(app).commands.items()):  # type: ignore[attr-defined]
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        usage = " ".join(["sddpm", verb, *(each.metavar or each.name.upper() for each in arguments)])
        lines += [f"## sddpm {verb}", "", f"```text\n{usage} [OPTIONS]\n```", ""]
        lines += [escaped(with_names(command.help or "")), ""]
        lines += ["| option | value | meaning |", "|---|---|---|"]
        lines += [option_row(each) for each in command.params]
        lines.append("")
    return "\n".join(lines)


def option_row(each: Any) -> str:
    """A row of the table of a verb: an argument or option, its value, and its meaning."""
    from sddpm.cli.help import with_names

    names = each.metavar or each.name.upper()
    if each.param_type_name == "option":
        names = ", ".join([*each.opts, *each.secondary_opts])
    flag = getattr(each, "is_flag", False)
    takes = (
        "" if flag or each.param_type_name == "argument" else each.metavar or each.type_descriptor.annotation.__name__
    )
    text = cell(with_names(each.help or ""))
    default = getattr(each.default, "value", each.default)
    if not flag and default is not None and not callable(default) and each.show_default:
        text += f" Default: `{default}`."
    if each.multiple:
        text += " May be repeated."
    return f"| `{names}` | {f'`{takes}`' if takes else ''} | {text} |"


def escaped(text: str) -> str:
    """Escape words that Markdown would read as emphasis or links."""
    return re.sub(r"([*_\[\]<>])", r"\\\1", text)


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;").replace("*", "\\*")


def config_keys() -> str:
    """Every key of a config, by section, and the available configs and names."""
    from sddpm.cli.listing import LISTS
    from sddpm.training.config import KINDS, Config, DistillConfig

    lines = ["# Config keys", "", "Made from the schema. `--set SECTION.KEY=VALUE` changes one for a run.", ""]
    for section, field in Config.model_fields.items():
        if section == "model":
            for kind, model in KINDS.items():
                lines += [f"## model, kind {kind}", "", first_line(model), "", *key_table("model", model)]
        else:
            model = DistillConfig if section == "distill" else field.annotation
            lines += [f"## {section}", "", f"{field.description}.", "", *key_table(section, model)]
    lines += ["## Names", "", "`sddpm list` prints these, with those that your own code has registered.", ""]
    for kind, names in LISTS.items():
        if kind != "models":
            lines += [f"### {kind}", "", "| name | what |", "|---|---|"]
            lines += [f"| `{name}` | {cell(text)} |" for name, text in names().items()] + [""]
    return "\n".join(lines)


def first_line(part: Any) -> str:
    """The first sentence of a docstring."""
    return (part.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


def key_table(section: str, model: Any) -> list[str]:
    """A row for each key of a section."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for key, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = {None: "null", True: "true", False: "false"}.get(default) if default in (None, True, False) else default
        if isinstance(default, int | float) and not isinstance(default, bool):
            shown = default
        shown = list(shown) if isinstance(shown, tuple) else shown
        rows.append(f"| `{section}.{key}` | `{shown}` | {cell(field.description or '')} |")
    return [*rows, ""]


def public_names(package: str) -> Iterator[str]:
    """The full names of a package's public functions and classes, in the package's order."""
    module = import_module(f"sddpm.{package}")
    names = getattr(module, "__all__", None)
    if names:
        parts = [getattr(module, name) for name in names]
    else:
        modules = [import_module(f"sddpm.{package}.{info.name}") for info in iter_modules(module.__path__)]
        parts = [part for each in modules for name, part in vars(each).items() if defined_in(each, name, part)]
    for part in parts:
        if isclass(part) or isfunction(part):
            yield f"{part.__module__}.{part.__qualname__}"


def defined_in(module: types.ModuleType, name: str, part: Any) -> bool:
    """Whether a public, documented function or class is a module's own."""
    return not name.startswith("_") and getattr(part, "__module__", "") == module.__name__ and bool(part.__doc__)


def api_page(package: str, about: str) -> str:
    """A page of the reference for mkdocstrings to fill."""
    module = import_module(f"sddpm.{package}")
    body = "\n\n".join(f"::: {name}" for name in public_names(package))
    return f"# sddpm.{package}\n\n{about}. {escaped(first_line(module))}\n\n{body}\n"


def source_page(path: Path) -> str:
    """A page for a file of the repository, or a list for a folder."""
    name = path.relative_to(ROOT).as_posix()
    if path.suffix == ".md":
        return re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    head = f"---\nsearch:\n  exclude: true\n---\n\n# {name}\n\n"
    if path.is_dir():
        inside = sorted(
            each for each in path.iterdir() if not each.name.startswith(("_", ".")) and each.suffix != ".so"
        )
        return head + "\n".join(f"- `{each.name}{'/' if each.is_dir() else ''}`" for each in inside) + "\n"
    return f"{head}````{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text(encoding='utf-8')}\n````\n"


def page_of(path: str) -> str:
    """The page of the site for a path of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path in AT_THE_ROOT:
        return AT_THE_ROOT[path]
    if (ROOT / path).is_dir():
        return f"source/{path}/index.md"
    return f"source/{path}" if path.endswith((".md", ".png")) else f"source/{path}.md"


def repository_path(uri: str) -> str:
    """The file of the repository that a page of the site shows."""
    for path, page in AT_THE_ROOT.items():
        if uri == page and page != "index.md":
            return path
    if uri.startswith("source/"):
        return uri.removeprefix("source/")
    return f"docs/{uri}"


def outside(text: str, path: str) -> Iterator[str]:
    """Paths of the repository, beyond docs/, that a text links to."""
    for _, link, _, _ in LINK.findall(FENCE.sub("", text)):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
        if "://" not in link and not link.startswith("mailto:") and not target.startswith(("docs/", "..")):
            yield target


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    made = {"reference/cli.md": command_line(), "reference/config.md": config_keys()}
    made |= {f"reference/api/{package}.md": api_page(package, about) for package, about in PACKAGES.items()}
    for name, page in AT_THE_ROOT.items():
        if page != "index.md":
            made[page] = (ROOT / name).read_text(encoding="utf-8")
    texts = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    texts |= {repository_path(page): text for page, text in made.items()}
    wanted = sorted({target for path, text in texts.items() for target in outside(text, path)})
    while wanted:
        path = wanted.pop()
        uri = page_of(path)
        if uri in made or files.get_file_from_path(uri) or path in AT_THE_ROOT:
            continue
        if path.endswith(".png"):
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
            continue
        made[uri] = source_page(ROOT / path)
        if path.endswith(".md"):
            wanted += outside(made[uri], path)
    for uri, text in made.items():
        file = File.generated(config, uri, content=text)
        if uri.startswith("source/"):
            file.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Redirects links to other files of the repository to their pages."""
    uri = page.file.src_uri
    path = repository_path(uri)
    if uri.startswith("reference/"):
        return markdown

    def lead(match: re.Match[str]) -> str:
        before, link, anchor, after = match.groups()
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
        if "://" in link or link.startswith("mailto:") or not (ROOT / target).exists():
            return match[0]
        return f"{before}{os.path.relpath(page_of(target), posixpath.dirname(uri) or '.')}{anchor or ''}{after}"

    parts, at = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(lead, markdown[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, LINK.sub(lead, markdown[at:])])


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Raises an error if a page would load anything from elsewhere: the site must work without a network."""
    if found := re.search(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"(https?://[^\"]*)", output):
        raise PluginError(f"{page.file.src_uri} would fetch {found[1]}: keep it in docs/")
    return output
