import re

from sddpm.cli.options import Solver
from sddpm.diffusion.solvers import SOLVERS


def test_the_help_names_every_solver():
    (option,) = Solver.__metadata__
    assert set(SOLVERS) <= set(re.split(r"[\s,;.]+", option.help))
