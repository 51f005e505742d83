"""What the package imports is what pyproject.toml declares, no less and no more; templates and data are packaged."""

import ast
import re
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "sddpm"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Parts of another distribution that is declared.
PARTS_OF = {"pydantic_core": "pydantic"}


def plain(requirement: str) -> str:
    """The name of a distribution, as packaging compares them."""
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def imported() -> dict[str, Path]:
    """{distribution: a module that imports from it}."""
    known = packages_distributions()
    found: dict[str, Path] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("import_module", "find_spec"):
                names = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            for top in {name.split(".")[0] for name in names} - {"sddpm", ""}:
                if top not in sys.stdlib_module_names:
                    distribution = PARTS_OF.get(top) or known.get(top, [top])[0]
                    found[plain(distribution)] = path.relative_to(ROOT)
    return found


def declared() -> tuple[set[str], set[str]]:
    """Distributions that come with the package, and those of its extras (but for the tests' own)."""
    project = PROJECT["project"]
    extras = {name: rows for name, rows in project["optional-dependencies"].items() if name not in ("test", "docs")}
    return set(map(plain, project["dependencies"])), {plain(row) for rows in extras.values() for row in rows}


def test_every_import_is_declared():
    always, extras = declared()
    # Where triton is, torch brought it: its kernels are for GPUs, and nothing else imports them.
    undeclared = {name: str(path) for name, path in imported().items() if name not in always | extras | {"triton"}}
    assert undeclared == {}


def test_every_dependency_is_imported():
    always, _ = declared()
    assert always - set(imported()) == set()


def test_files_that_are_no_python_are_packaged():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["sddpm"]
    built = {".so", ".cpp", ".h", ".pyc", ".pyd"}
    for path in PACKAGE.rglob("*"):
        inside = path.relative_to(PACKAGE).as_posix()
        if path.is_file() and path.suffix not in {".py", *built} and "__pycache__" not in path.parts:
            assert any(fnmatch(inside, pattern.replace("**/", "")) for pattern in patterns), inside
