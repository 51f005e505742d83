"""A model of one's own on the page, in headless Chromium: classes, guidance, samplers, and when it is gone."""

import shutil

import numpy as np
import pytest

from sddpm.app.drawing import draw
from sddpm.app.settings import Settings
from sddpm.pipelines import load_pipeline
from tests.app.conftest import choose, field, line, page_of, saved
from tests.helpers.small_pipeline import pipeline_of


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "clothes"
    pipeline = pipeline_of(num_classes=2, names=["shirt", "boot"])
    pipeline.register_to_config(samplers={"quick": {"solver": "dpm++", "num_inference_steps": 2, "x0_scale": 1.1}})
    pipeline.save_pretrained(folder)
    return str(folder)


def test_classes_guidance_and_samplers(visit, model):
    with page_of(model) as at:
        page = visit(at=at)
        choose(page, "Class", "boot")
        field(page, "Guidance scale").fill("2.5")
        choose(page, "Sampler", "quick")
        page.get_by_role("button", name="Draw").click()
        line(page).get_by_text("4 pictures, 2 evaluations").wait_for()
        settings = Settings(model, label="1", guidance_scale=2.5, sampler="quick")
        assert np.array_equal(saved(page), np.asarray(draw(load_pipeline(model), settings).sheet()))
        choose(page, "Class", "all, one row each")
        page.get_by_role("button", name="Draw").click()
        line(page).get_by_text("8 pictures, 2 evaluations").wait_for()
        assert page.get_by_role("img", name="Picture of seed 3, shirt").is_visible()
        for view, button, result in [
            ("Spikes", "Trace", "seed 0, boot: 2 evaluations"),
            ("Energy", "Measure", "seed 0, boot: 2 evaluations"),
            ("Threshold", "Compare", "5 thresholds, 10 evaluations"),
        ]:
            page.get_by_role("tab", name=view).click()
            choose(page, "Class", "boot")
            field(page, "Guidance scale").fill("2")
            choose(page, "Sampler", "quick")
            page.get_by_role("button", name=button).click()
            line(page).get_by_text(result).wait_for()
        shutil.rmtree(model)
        page.get_by_role("tab", name="Draw").click()
        page.get_by_role("button", name="Draw").click()
        line(page).get_by_text("no model at").wait_for()
        choose(page, "Model", "fashion-mnist-small")
        field(page, "Guidance scale").wait_for(state="hidden")
        field(page, "Evaluations").fill("1")
        page.get_by_role("button", name="Draw").click()
        line(page).get_by_text("4 pictures, 1 evaluation,").wait_for()
