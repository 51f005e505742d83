"""What every verb says of itself: help as it is written, defaults, models, version, completion, lists, loudness."""

import os
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import sddpm
from sddpm.cli.app import App
from sddpm.cli.help import with_names
from sddpm.cli.listing import LISTS
from sddpm.cli.loudness import loudness
from sddpm.cli.main import app
from sddpm.errors import UserError

VERBS = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]


def help_of(*verb: str, to: App = app) -> str:
    """What --help shows, without the lines around it and on one line."""
    result = CliRunner().invoke(to, [*verb, "--help"], env={"COLUMNS": "2000", "TERMINAL_WIDTH": "2000"})
    assert result.exit_code == 0
    return re.sub(r"[\s│]+", " ", result.stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_every_word_and_every_default(verb):
    shown = help_of(verb)
    for parameter in VERBS[verb].params:
        text = with_names(getattr(parameter, "help", None) or "")
        assert " ".join(text.split()) in shown
        default = parameter.default
        silent = default is None or default is False or default is True or default == []  # but 0 and 1 are shown
        if not silent and parameter.param_type_name == "option":
            assert f"[default: {getattr(default, 'value', default)}]" in shown, parameter.name
    assert "--quiet" in shown
    assert "--verbose" in shown


def test_brackets_in_help_are_no_styles():
    own = App()

    @own.command()
    def first(neuron: str = typer.Option("if", help="if, lif or plif [if].")) -> None:
        """Neurons [of some kind]."""

    shown = help_of(to=own)
    assert "if, lif or plif [if]. [default: if]" in shown
    assert "Neurons [of some kind]." in shown


@pytest.mark.parametrize("verb", [name for name, verb in VERBS.items() if "MODEL" in {p.metavar for p in verb.params}])
def test_a_verb_that_takes_a_model_says_that_names_do(verb):
    assert re.search(r"name of a model \(sddpm list models\).*USER/MODEL on the Hugging Face hub", help_of(verb))


@pytest.mark.parametrize("kind", LISTS)
def test_lists_say_what_each_is(kind):
    result = CliRunner().invoke(app, ["list", kind])
    assert result.exit_code == 0
    rows = [line.split(None, 1) for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == list(LISTS[kind]())
    assert all(len(row) == 2 for row in rows)


def test_lists_name_what_there_is():
    wanted = {"models": "mnist", "configs": "mnist_small", "data": "cifar10", "solvers": "ddim", "metrics": "fid"}
    wanted |= {"neurons": "plif", "surrogates": "atan", "densities": "log-normal", "cost-models": "45nm-int8"}
    assert set(wanted) == set(LISTS)
    assert all(name in LISTS[kind]() for kind, name in wanted.items())


def test_an_unknown_list_is_refused():
    result = CliRunner().invoke(app, ["list", "solver"])
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == "unknown list 'solver': did you mean solvers?"


def test_the_version():
    assert CliRunner().invoke(app, ["--version"]).stdout == f"sddpm {sddpm.__version__}\n"


def test_completion_names_the_verbs():
    program = "from sddpm.cli.main import app; app(prog_name='sddpm')"
    asked = {"_SDDPM_COMPLETE": "complete_bash", "COMP_WORDS": "sddpm inp", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | asked, capture_output=True, text=True)
    assert done.stdout.split() == ["inpaint"]


def test_quiet_says_nothing_but_results(tmp_path):
    run = [sys.executable, "-m", "sddpm", "train", "digits", "--set", "model.base_channels=8", "--set", "train.steps=1"]
    done = subprocess.run([*run, "--quiet", "--out", tmp_path / "run"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "trained 1 steps" in done.stdout
    failed = subprocess.run([*run, "--quiet", "--out", tmp_path / "run"], capture_output=True, text=True)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ")


def test_quiet_and_verbose_exclude_each_other():
    with pytest.raises(UserError, match="cannot be combined"), loudness(quiet=True, verbose=True):
        pass
