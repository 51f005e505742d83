"""The view Energy in headless Chromium: every control, keyboard, a phone."""

from sddpm.app.consumption import consume
from sddpm.app.settings import Settings
from sddpm.app.tabs.energy import in_units
from sddpm.energy import load_cost_model
from sddpm.pipelines import load_pipeline
from tests.app.conftest import MODEL, choose, field, line


def numbers(page):
    return page.locator(".bill dd").all_text_contents()


def test_every_control(visit):
    page = visit("Energy")
    field(page, "Seed").fill("3")
    choose(page, "Solver", "dpm++")
    field(page, "Evaluations").fill("3")
    field(page, "Firing threshold").fill("0.99x")
    field(page, "x0 scale").fill("1.02")
    page.get_by_role("button", name="Measure").click()
    line(page).get_by_text("seed 3: 3 evaluations").wait_for()
    settings = Settings(MODEL, "3", solver="dpm++", steps=3, thresholds="0.99x", x0_scale=1.02)
    made = consume(load_pipeline(MODEL), settings)
    cost = load_cost_model("45nm")
    expected = [in_units(made.growth(cost)[-1]), in_units(made.twin_growth(cost)[-1]), "4 of 4"]
    assert [numbers(page)[i] for i in (0, 1, 3)] == expected
    choose(page, "Cost model", "45nm-int8")
    page.get_by_text("Runs, by the cost model 45nm-int8").wait_for()
    assert numbers(page)[0] == in_units(made.growth(load_cost_model("45nm-int8"))[-1])
    field(page, "Early exit").fill("5")
    field(page, "Early exit").press("Tab")
    page.get_by_role("button", name="Measure").press("Enter")
    page.locator("table.runs tbody tr").nth(1).wait_for()
    assert page.locator("table.runs tbody tr").first.locator("td").nth(4).text_content() == "2 of 4"
    for says in ("After 3 evaluations", "From ", "45nm: "):
        assert page.get_by_role("img", name=says).is_visible()
    choose(page, "Model", "mnist")
    field(page, "Evaluations").fill("1")
    field(page, "Seed").press("Enter")
    page.locator("table.runs tbody tr").nth(2).wait_for()


def test_bad_values_and_stop(visit):
    page = visit("Energy")
    field(page, "Early exit").fill("-1")
    page.get_by_role("button", name="Measure").click()
    line(page).get_by_text("tolerance").wait_for()
    field(page, "Early exit").fill("")
    field(page, "Evaluations").fill("500")
    page.get_by_role("button", name="Measure").click()
    line(page).get_by_text(" of 500").wait_for()
    page.get_by_role("button", name="Stop").filter(visible=True).click()
    line(page).get_by_text("Stopped after").wait_for()
    assert page.locator("table.runs").count() == 0


def test_on_a_phone(visit):
    page = visit("Energy", width=390, height=844)
    field(page, "Evaluations").fill("1")
    page.get_by_role("button", name="Measure").click()
    page.locator("table.runs").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
