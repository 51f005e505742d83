"""The view Draw in headless Chromium: every control, keyboard, bad values, two visitors, a phone."""

import numpy as np
import pytest

from sddpm.app.drawing import draw
from sddpm.app.settings import Settings
from sddpm.pipelines import load_pipeline
from tests.app.conftest import MODEL, choose, field, line, saved


def test_every_control(visit):
    page = visit()
    field(page, "Seeds").fill("7,3")
    choose(page, "Solver", "dpm++")
    field(page, "Evaluations").fill("4")
    field(page, "Firing threshold").fill("0.995x")
    field(page, "x0 scale").fill("1.05")
    page.get_by_role("button", name="Draw").click()
    line(page).get_by_text("2 pictures, 4 evaluations").wait_for()
    assert page.get_by_role("img", name="Picture of seed 7").is_visible()
    settings = Settings(MODEL, "7,3", solver="dpm++", steps=4, thresholds="0.995x", x0_scale=1.05)
    pipeline = load_pipeline(MODEL)
    assert np.array_equal(saved(page), np.asarray(draw(pipeline, settings).sheet()))
    page.get_by_role("button", name="The same with").click()
    for code in (settings.command(), "pipe = load_pipeline"):
        page.get_by_text(code).filter(visible=True).first.wait_for()
    choose(page, "Model", "mnist")
    page.get_by_placeholder("default (50)").filter(visible=True).wait_for()
    field(page, "Seeds").fill("0")
    field(page, "Evaluations").fill("1")
    page.get_by_role("button", name="Draw").click()
    line(page).get_by_text("1 picture, 1 evaluation,").wait_for()


def test_a_distilled_model_keeps_to_its_evaluations(visit):
    page = visit()
    field(page, "Evaluations").fill("7")
    choose(page, "Model", "fashion-mnist-4")
    page.get_by_placeholder("default (4)").filter(visible=True).wait_for()
    assert field(page, "Evaluations").is_disabled() and field(page, "Evaluations").input_value() == ""
    field(page, "Solver").click()
    offered = page.get_by_role("option").filter(visible=True).all_text_contents()
    assert [text.strip(" \u2713\n") for text in offered] == ["default (ddim)", "ddim"]
    choose(page, "Model", MODEL)
    page.get_by_placeholder("default (50)").filter(visible=True).wait_for()
    assert field(page, "Evaluations").is_enabled()


def test_keyboard_progress_and_stop(visit):
    page = visit()
    field(page, "Evaluations").fill("900")
    field(page, "Seeds").fill("5")
    field(page, "Seeds").press("Enter")
    line(page).get_by_text(" of 900").wait_for()
    assert page.get_by_role("img", name="Picture of seed 5").is_visible()  # on its way
    assert page.get_by_role("button", name="Draw").is_disabled()
    page.get_by_role("button", name="Stop").press("Enter")
    line(page).get_by_text("Stopped after").wait_for()
    assert page.get_by_role("button", name="Stop").is_disabled()


@pytest.mark.parametrize(
    ("label", "value", "words"),
    [
        ("Seeds", "many", "neither a seed nor a range"),
        ("Evaluations", "9" * 400, "whole number"),
        ("Evaluations", "a few", "Evaluations: a number is needed"),
        ("Firing threshold", "<b>0</b>", "a number such as 0.999"),
        ("x0 scale", "-1", "x0_scale must be a positive number"),
    ],
)
def test_bad_values_are_a_line(visit, label, value, words):
    page = visit()
    field(page, label).fill(value)
    page.get_by_role("button", name="Draw").click()
    line(page).get_by_text(words).wait_for()
    assert page.get_by_role("button", name="Draw").is_enabled()


def test_two_visitors_at_once(visit):
    pages = [visit(), visit()]
    said = [("1", "0.9x"), ("2", "1.01x")]
    for page, (seed, threshold) in zip(pages, said, strict=True):
        field(page, "Seeds").fill(seed)
        field(page, "Evaluations").fill("12")
        field(page, "Firing threshold").fill(threshold)
    for page in pages:
        page.get_by_role("button", name="Draw").click()
    for page, (seed, threshold) in zip(pages, said, strict=True):
        line(page).get_by_text("1 picture, 12 evaluations").wait_for()
        expected = draw(load_pipeline(MODEL), Settings(MODEL, seed, steps=12, thresholds=threshold))
        assert np.array_equal(saved(page), np.asarray(expected.sheet()))


def test_on_a_phone(visit):
    page = visit(width=390, height=844)
    field(page, "Evaluations").fill("2")
    page.get_by_role("button", name="Draw").click()
    line(page).get_by_text("4 pictures, 2 evaluations").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
