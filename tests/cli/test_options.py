import re
from dataclasses import fields

from sddpm.cli.options import SAMPLING
from sddpm.diffusion.solvers import SOLVERS
from sddpm.pipelines.options import SamplingKeywords, SamplingOptions


def test_the_help_names_every_solver():
    assert set(SOLVERS) <= set(re.split(r"[\s,;.]+", SAMPLING["solver"].help))


def test_every_sampling_option_is_a_keyword_and_a_row():
    names = [field.name for field in fields(SamplingOptions)]
    assert {*SamplingKeywords.__annotations__, "batch_size"} == set(names) == set(SAMPLING)
