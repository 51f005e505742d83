"""The command line and the program that the page shows draw the picture that it saves."""

import numpy as np
import pytest
from PIL import Image

from sddpm.app.drawing import draw
from sddpm.app.settings import MOST_PICTURES, Settings
from sddpm.errors import UserError
from sddpm.pipelines import load_pipeline
from tests.helpers.small_pipeline import pipeline_of


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "with spaces"
    pipeline = pipeline_of(num_classes=2, names=["T-shirt/top", "boot"], scale=1.02)
    pipeline.save_pretrained(folder)
    return str(folder)


CASES = [
    {},
    {"seeds": "7, 3-4", "label": "0", "steps": 5, "solver": "dpm++", "x0_scale": 1.1, "thresholds": "0.9x"},
    {"label": "all", "steps": 3, "guidance_scale": 2.5, "thresholds": "down*=0.5, 0.9 down*=0.8x"},
    {"seeds": "0-16", "label": "none", "steps": 2, "exit_tolerance": 0.5},
]


@pytest.mark.parametrize("said", CASES)
def test_the_same_pixels_from_everywhere(model, said, sddpm, tmp_path):
    settings = Settings(model, **said)
    pipeline = load_pipeline(model)
    ours = np.asarray(draw(pipeline, settings).sheet())
    name, *arguments = __import__("shlex").split(settings.command())
    assert name == "sddpm" and sddpm(*arguments)[0] == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "samples.png")), ours)
    (tmp_path / "samples.png").unlink()
    exec(settings.program(pipeline), {})
    assert np.array_equal(np.asarray(Image.open(tmp_path / "samples.png")), ours)


def test_what_is_the_model_s_own_is_not_said(model):
    assert Settings("mnist").command() == "sddpm sample mnist --seeds 0-3 --out samples.png"
    assert "solver" not in Settings(model, label="random").program(load_pipeline(model))


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"seeds": ""}, "give seeds"),
        ({"seeds": "one"}, "neither a seed nor a range"),
        ({"seeds": "0-99999999999"}, "more than 64"),
        ({"seeds": "0-40", "label": "all"}, f"this page draws at most {MOST_PICTURES} at a time"),
        ({"label": "2e9"}, "unknown class"),
        ({"steps": 1.5}, "whole number"),
        ({"steps": 10**9}, "from 1 to 1000"),
        ({"steps": -1}, "from 1 to 1000"),
        ({"solver": "nothing"}, "nothing"),
        ({"thresholds": "high"}, "a number such as 0.999"),
        ({"thresholds": "nan"}, "positive"),
        ({"thresholds": "nothing*=1"}, "no neuron layer"),
        ({"x0_scale": 0}, "x0_scale"),
        ({"x0_scale": float("nan")}, "x0_scale"),
        ({"guidance_scale": float("inf")}, "guidance scale"),
        ({"exit_tolerance": -1.0}, "tolerance"),
    ],
)
def test_absurd_values(model, said, line):
    with pytest.raises(UserError, match=line) as refused:
        draw(load_pipeline(model), Settings(model, **said))
    assert "\n" not in str(refused.value)


def test_signals_are_no_pictures():
    with pytest.raises(UserError, match="signals"):
        draw(pipeline_of(dims=1, sample_size=16), Settings("signals"))
