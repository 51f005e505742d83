import re
from dataclasses import fields

import pytest
import torch

from sddpm.cli.options import SAMPLING
from sddpm.diffusion.solvers import SOLVERS, make_scheduler
from sddpm.guidance import store_sampler
from sddpm.models import SpikingUNet2DModel
from sddpm.pipelines import Sampler, SpikingDiffusionPipeline
from sddpm.pipelines.options import SamplingKeywords, SamplingOptions


def test_the_help_names_every_solver():
    assert set(SOLVERS) <= set(re.split(r"[\s,;.]+", SAMPLING["solver"].help))


def test_every_sampling_option_is_a_keyword_and_a_row():
    names = [field.name for field in fields(SamplingOptions)]
    assert {*SamplingKeywords.__annotations__, "batch_size"} == set(names) == set(SAMPLING)


@pytest.fixture
def kept(tmp_path):
    """A model whose own solver is ddim with 3 steps and whose default sampler is dpm++ with 2."""
    torch.manual_seed(0)
    unet = SpikingUNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, base_channels=8, channel_mult=(1,), num_res_blocks=1, T=2
    )
    pipeline = SpikingDiffusionPipeline(unet, make_scheduler("ddim"), num_inference_steps=3)
    pipeline.save_pretrained(tmp_path / "model")
    store_sampler(tmp_path / "model", "fast", Sampler("dpm++", 2))
    store_sampler(tmp_path / "model", "other", Sampler("unipc", 4), default=False)
    return "model"


@pytest.mark.parametrize(
    ("verb", "options", "said"),
    [
        (("sample",), (), "dpm++ with 2 steps"),
        (("sample",), ("--solver", "own"), "ddim with 3 steps"),
        (("sample",), ("--solver", "own", "--sampler", "other"), "unipc with 4 steps"),
        (("interpolate", "--seeds", "0,1", "--frames", 2), (), "ddim with 3 steps"),
        (("interpolate", "--seeds", "0,1", "--frames", 2), ("--sampler", "fast"), "dpm++ with 2 steps"),
        (("interpolate", "--seeds", "0,1", "--frames", 2), ("--solver", "own"), "ddim with 3 steps"),
        (("interpolate", "--seeds", "0,1", "--frames", 2), ("--solver", "unipc"), "unipc with 3 steps"),
    ],
)
def test_own_and_named_samplers_are_what_they_say(sddpm, kept, verb, options, said):
    count = ("--count", 1) if verb == ("sample",) else ()
    code, out, err = sddpm(verb[0], kept, *verb[1:], *count, *options, "--device", "cpu", "--out", "x.png")
    assert code == 0 and said in out, (out, err)
