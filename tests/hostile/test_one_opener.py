"""Files from outside are read by `sddpm.opening`, and by nothing else: a new reader uses it, or is listed here."""

import ast
from pathlib import Path

import sddpm

SOURCE = Path(sddpm.__file__).parent
READERS = {
    *("json.load", "json.loads", "yaml.load", "yaml.safe_load", "np.load", "np.fromfile", "torch.load"),
    *("Image.open", "safe_open", "load_file", "tarfile.open", "expanduser", "pickle.load", "pickle.loads"),
}
ELSEWHERE = {
    "data/cifar.py": {"tarfile.open"},  # the published archive, its hash compared
    "data/images.py": {"json.loads"},  # dataset.json out of a folder, zip: what fails leaves labels out
    "data/registry.py": {"np.load"},  # the digits of the package
    "evaluation/shards.py": {"np.load"},  # what this package wrote to its cache, mapped and not read
    "export/web.py": {"tarfile.open"},  # what npm fetched
    "files/kinds.py": {"json.loads"},  # what fails means that it is none of ours
    "files/lock.py": {"json.loads"},
    "files/scratch.py": {"json.loads"},
    "moving/runs.py": {"tarfile.open"},  # parts whose hashes were compared
    "training/metrics.py": {"json.loads"},  # a line cut short is left out
}


def called(tree: ast.AST) -> set[str]:
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {name for call in calls for name in (ast.unparse(call), getattr(call, "attr", "")) if name in READERS}


def test_readers():
    found = {}
    for file in sorted(SOURCE.rglob("*.py")):
        name = file.relative_to(SOURCE).as_posix()
        if not name.startswith("opening/") and (names := called(ast.parse(file.read_text(encoding="utf-8")))):
            found[name] = names
    assert found == ELSEWHERE
