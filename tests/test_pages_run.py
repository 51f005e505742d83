"""What documents show is run, in the order of the page, with tiny networks and few steps: the commands of README and
site that need neither a GPU nor the network, and their Python."""

import pytest

from sddpm.data import DATASETS
from sddpm.evaluation import METRICS
from tests.helpers.documents import DOCUMENTS, ROOT, commands
from tests.helpers.workshop import Workshop

# Run in `make test`; the others take minutes together.
QUICK = ("README.md", "docs/start/", "docs/tutorials/own-neuron.md")
# Their Python is run elsewhere (tests/energy, tests/evaluation), needs Inception's weights, or is a fragment.
NO_PYTHON = ("energy.md", "evaluate.md", "guide.md")
# Their commands have placeholders, serve for ever, or are said in passing of a folder of one's own.
NO_COMMAND = ("docs/decisions.md", "docs/how-to/app.md", "docs/measurements/analytic-dpm.md", "docs/start/install.md")
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
    text = page.read_text(encoding="utf-8")
    workshop.run_page(text, python=page.name not in NO_PYTHON)
    shown = any(words for _, *words in commands(text))  # not a verb's name alone
    assert bool(workshop.ran) == (shown and page.relative_to(ROOT).as_posix() not in NO_COMMAND)
    assert (dict(METRICS), dict(DATASETS)) == known
