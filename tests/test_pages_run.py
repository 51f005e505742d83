"""What documents show is run, in the order of the page, with tiny networks and few steps: the commands of README and
site that need neither a GPU nor the network, and their Python."""

import pytest

from sddpm.data import DATASETS
from sddpm.evaluation import METRICS
from tests.helpers.documents import DOCUMENTS, ROOT
from tests.helpers.workshop import Workshop

# Run in `make test`; the others take minutes together.
QUICK = ("README.md", "docs/start/", "docs/tutorials/own-neuron.md")
# Their Python is run elsewhere (tests/energy, tests/evaluation), needs Inception's weights, or is a fragment.
NO_PYTHON = ("energy.md", "evaluate.md", "guide.md")
PAGES = [path for path in DOCUMENTS if path.relative_to(ROOT).parts[0] in ("README.md", "docs")]


def marked(path):
    name = path.relative_to(ROOT).as_posix()
    marks = () if name.startswith(QUICK) else (pytest.mark.slow,)
    return pytest.param(path, id=name, marks=marks)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", [marked(path) for path in PAGES])
def test_page(page, tmp_path, monkeypatch, registries):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDDPM_CACHE", str(tmp_path / "cache"))
    known = dict(METRICS), dict(DATASETS)
    workshop = Workshop(tmp_path, page.name)
    workshop.run_page(page.read_text(encoding="utf-8"), python=page.name not in NO_PYTHON)
    assert (dict(METRICS), dict(DATASETS)) == known
