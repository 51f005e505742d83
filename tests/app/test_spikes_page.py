"""The view Spikes in headless Chromium: every control, keyboard, a phone."""

from tests.app.conftest import choose, field, line


def test_every_control(visit):
    page = visit("Spikes")
    field(page, "Seed").fill("3")
    choose(page, "Solver", "unipc")
    field(page, "Evaluations").fill("5")
    field(page, "Firing threshold").fill("0.99x")
    field(page, "x0 scale").fill("1.02")
    page.get_by_role("button", name="Trace").click()
    line(page).get_by_text("seed 3: 5 evaluations").wait_for()
    page.get_by_text("at evaluation 5").wait_for()
    place = page.get_by_role("slider").filter(visible=True)
    place.focus()
    place.press("ArrowLeft")
    page.get_by_text("at evaluation 4").wait_for()
    page.get_by_role("spinbutton").filter(visible=True).fill("2")
    page.get_by_text("at evaluation 2").wait_for()
    choose(page, "Layer", "middle.0.neuron1")
    for says in ("Histogram of the membranes of middle.0.neuron1", "Raster of", "Spike maps of middle.0.neuron1"):
        page.get_by_role("img", name=says).wait_for()
    assert page.locator(".layers li").count() == 27
    assert page.locator(".layers li.chosen .name").text_content() == "middle.0.neuron1"
    choose(page, "Model", "fashion-mnist")
    field(page, "Evaluations").fill("2")
    page.get_by_role("button", name="Trace").click()
    line(page).get_by_text("seed 3: 2 evaluations").wait_for()
    page.get_by_text("at evaluation 2").wait_for()


def test_bad_values_and_stop(visit):
    page = visit("Spikes")
    for label, value, words in [("Seed", "0-3", "give one seed"), ("Evaluations", "999", "at most 250")]:
        before = field(page, label).input_value()
        field(page, label).fill(value)
        page.get_by_role("button", name="Trace").click()
        line(page).get_by_text(words).wait_for()
        field(page, label).fill(before)
    field(page, "Evaluations").fill("250")
    field(page, "Seed").press("Enter")
    line(page).get_by_text(" of 250").wait_for()
    page.get_by_role("button", name="Stop").filter(visible=True).click()
    line(page).get_by_text("Stopped after").wait_for()


def test_on_a_phone(visit):
    page = visit("Spikes", width=390, height=844)
    field(page, "Evaluations").fill("2")
    page.get_by_role("button", name="Trace").click()
    page.get_by_text("at evaluation 2").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
