"""The view Threshold in headless Chromium: every control, keyboard, a phone."""

import numpy as np

from sddpm.app.comparison import compare
from sddpm.app.settings import Settings
from sddpm.pipelines import load_pipeline
from tests.app.conftest import MODEL, choose, field, line, saved


def test_every_control(visit):
    page = visit("Threshold")
    field(page, "Thresholds").fill("0.9x, 1x")
    field(page, "Seeds").fill("1,2")
    choose(page, "Solver", "unipc")
    field(page, "Evaluations").fill("4")
    field(page, "x0 scale").fill("1.01")
    page.get_by_role("button", name="Compare").click()
    line(page).get_by_text("2 thresholds, 8 evaluations").wait_for()
    assert page.get_by_role("img", name="Picture of seed 2 at 0.9x").is_visible()
    settings = Settings(MODEL, "1,2", solver="unipc", steps=4, x0_scale=1.01)
    assert np.array_equal(saved(page), np.asarray(compare(load_pipeline(MODEL), settings, "0.9x, 1x").sheet()))
    page.get_by_role("button", name="The same with the command line").filter(visible=True).click()
    page.get_by_text("--v-threshold 0.9x --out threshold-1.png").filter(visible=True).first.wait_for()
    choose(page, "Model", "mnist")
    field(page, "Evaluations").fill("1")
    field(page, "Thresholds").fill("up*=0.9x")
    field(page, "Thresholds").press("Enter")
    line(page).get_by_text("1 threshold, 1 evaluation,").wait_for()


def test_bad_values_and_stop(visit):
    page = visit("Threshold")
    for value, words in [("", "give thresholds"), ("1x, much", "a number such as 0.999")]:
        field(page, "Thresholds").fill(value)
        page.get_by_role("button", name="Compare").click()
        line(page).get_by_text(words).wait_for()
    field(page, "Thresholds").fill("1x, 2x")
    field(page, "Evaluations").fill("900")
    page.get_by_role("button", name="Compare").click()
    line(page).get_by_text(" of 1800").wait_for()
    page.get_by_role("button", name="Stop").filter(visible=True).click()
    line(page).get_by_text("Stopped after").wait_for()


def test_on_a_phone(visit):
    page = visit("Threshold", width=390, height=844)
    field(page, "Evaluations").fill("1")
    page.get_by_role("button", name="Compare").click()
    line(page).get_by_text("5 thresholds").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
