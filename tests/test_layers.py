"""The house: arrows between the parts of the package point down, and no imports run in a circle."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import sddpm

SOURCE = Path(sddpm.__file__).parent
LAYERS = [
    {"__main__"},
    {"cli"},
    {"app"},
    {"release", "conversion", "moving"},
    {"energy", "training", "guidance", "export"},
    {"evaluation"},
    {"pipelines"},
    {"inference"},
    {"models"},
    {"neurons", "diffusion", "figures", "data"},
    {"opening", "files"},
    {"native", "pretrained"},
    {"choices", "registry", "hashes", "layouts", "written"},
    {"errors", ""},
]
"""Folders and modules of the package, which import from lower rows only; "" is `sddpm/__init__.py` and its version."""
LAZY = {
    "cli/": "`sddpm --help` and refusals do not wait for torch",
    "data/registry.py": "only the reader of the data set that was asked for is loaded, and names need no numpy",
    "guidance/report.py": "matplotlib, if a figure is drawn",
    "models/kernels/fused_layers.py": "Triton, on a GPU",
}
"""Who imports inside functions, and why."""


@dataclass(frozen=True)
class Arrow:
    """`where` (a path in the package) imports the module `to`; `lazy`: inside a function."""

    where: str
    to: str
    lazy: bool


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SAVED = SOURCE / "pretrained" / "models"  # their pipeline.py are part of the models, for plain diffusers
MODULES = {module_of(path): path for path in sorted(SOURCE.rglob("*.py")) if SAVED not in path.parents}


def imported(tree: ast.AST, lazy: bool = False) -> Iterator[tuple[str, str, bool]]:
    """(module, name in it or "", inside a function) of each import; what only type checkers see is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            yield from ((node.module or "", alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "", lazy) for alias in node.names)
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imported(node, lazy or inside)


def homes() -> dict[tuple[str, str], str]:
    """Where the names live that packages give on first use, as their blocks for type checkers say."""
    found = {}
    for package, path in MODULES.items():
        for block in ast.parse(path.read_text(encoding="utf-8")).body:
            if path.name == "__init__.py" and isinstance(block, ast.If):
                found |= {(package, name): module for module, name, _ in imported(block)}
    return found


def arrows() -> list[Arrow]:
    lazily, found = homes(), []
    for path in MODULES.values():
        for module, name, lazy in imported(ast.parse(path.read_text(encoding="utf-8"))):
            if module.partition(".")[0] == "sddpm":
                inner = f"{module}.{name}"
                to = inner if inner in MODULES else lazily.get((module, name), module)
                found.append(Arrow(path.relative_to(SOURCE).as_posix(), to, lazy))
    return found


ARROWS = arrows()


def part(module: str) -> str:
    return (*module.split("."), "")[1]


def row(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def test_every_part_has_a_layer():
    assert sorted(name for layer in LAYERS for name in layer) == sorted({part(module) for module in MODULES})


def test_arrows_point_down():
    up = []
    for arrow in ARROWS:
        source, target = part(module_of(SOURCE / arrow.where)), part(arrow.to)
        if source != target and row(source) >= row(target):
            up.append((arrow.where, arrow.to))
    assert up == []


def test_imports_inside_functions_are_those_with_a_reason():
    lazy = {arrow.where for arrow in ARROWS if arrow.lazy}
    allowed = {name: {where for where in lazy if where.startswith(name)} for name in LAZY}
    assert sorted(lazy - set().union(*allowed.values())) == []
    assert [name for name, used in allowed.items() if not used] == []


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; none if there is no circle."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_imports_run_in_a_circle():
    edges: dict[str, set[str]] = {module: set() for module in MODULES}
    for arrow in ARROWS:
        edges[module_of(SOURCE / arrow.where)] |= {arrow.to} - {module_of(SOURCE / arrow.where)}
    assert circle(edges) == []


def test_the_package_is_read_as_python_reads_it():
    code = """
if TYPE_CHECKING:
    from sddpm.a import b
from sddpm.c import d
class E:
    def f(self):
        import sddpm.g
"""
    assert list(imported(ast.parse(code))) == [("sddpm.c", "d", False), ("sddpm.g", "", True)]
    assert len(ARROWS) > 1000 and not any(arrow.to not in MODULES for arrow in ARROWS)
    assert {arrow.to for arrow in ARROWS if arrow.where == "training/run.py"} >= {"sddpm.data.open", "sddpm.errors"}
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) and circle({"a": {"b"}, "b": {"c"}}) == []
