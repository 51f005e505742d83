"""The page, in headless Chromium: its solvers and noise against ours, every control, keyboard, labels and widths."""

import json
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sddpm.data import unit_to_uint8
from sddpm.diffusion.noise import generators_for
from sddpm.diffusion.solvers import make_scheduler
from sddpm.errors import UserError
from sddpm.export import web
from sddpm.export.web import PAGE, export_web
from sddpm.files.kinds import PAGE_PARTS, folder_kind
from sddpm.pipelines import denoise, load_pipeline
from sddpm.release.weights import halve
from tests.helpers.browser import chromium, needs, served
from tests.helpers.small_pipeline import pipeline_of


@pytest.fixture(scope="module")
def pipe():
    pipe = pipeline_of(num_classes=2, names=["shirt", "boot"], scale=1.02)
    pipe.unet.load_state_dict(halve(pipe.unet.state_dict()))  # so that the page's weights are the same
    return pipe


@pytest.fixture(scope="module")
def folder(pipe, tmp_path_factory):
    needs("chromium", "npm")
    folder = tmp_path_factory.mktemp("web") / "page"
    export_web(pipe, folder, name="tiny")
    return folder


@pytest.fixture(scope="module")
def browser():
    needs("chromium")
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(folder):
    with served(folder) as address:
        yield address


@pytest.fixture
def page(browser, address):
    page = browser.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.get_by_role("button", name="Draw").wait_for()
    page.wait_for_function("document.getElementById('status').textContent === 'Ready'")
    yield page
    page.close()
    assert not said
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)


@pytest.fixture(scope="module")
def script(browser):
    """Evaluates JavaScript with sampling.js at hand."""
    page = browser.new_page()
    page.add_script_tag(path=str(PAGE / "sampling.js"))
    yield page.evaluate
    page.close()


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_noise_by_seed_is_torch_s(script, seed):
    for count in (16, 64, 100, 784):
        expected = torch.randn(count, generator=torch.Generator().manual_seed(seed))
        found = script("([seed, count]) => Array.from(randn(seed, count))", [seed, count])
        assert np.allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_solvers_are_ours(script, solver, kind, schedule):
    scheduler = make_scheduler(solver, beta_schedule=schedule, prediction_type=kind)

    class Model(torch.nn.Module):
        def forward(self, x, t):
            return SimpleNamespace(sample=0.9 * x + 0.1 * torch.sin(3 * x + float(t)))

    x = torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    facts = {
        "alphas_cumprod": scheduler.alphas_cumprod.double().tolist(),
        "prediction_type": kind,
        "clip_sample": True,
        "x0_scale": 1.03,
    }
    for steps, kept in [
        (1, None),
        (2, None),
        (7, None),
        (20, None),
        (4, [999, 722, 302, 30]),
        (5, [999, 722, 302, 30]),
    ]:
        options = {"num_inference_steps": steps, "x0_scale": 1.03}
        if kept is not None and len(kept) == steps:
            options = {"timesteps": kept, "x0_scale": 1.03}
        ours = [
            step.x_prev.flatten().tolist() for step in denoise(Model(), scheduler, x, generators_for([0]), **options)
        ]
        theirs = script(
            """async ([model, x, steps, solver]) => {
                const predict = async (x, t) => ({ prediction: x.map((v) => 0.9 * v + 0.1 * Math.sin(3 * v + t)) });
                const found = [];
                for await (const step of sample(model, predict, x, steps, solver)) found.push(step.x);
                return found;
            }""",
            [facts | {"timesteps": kept}, x.flatten().tolist(), steps, solver],
        )
        assert np.allclose(theirs, ours, atol=2e-4)  # diffusers keeps its tables in float32


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_draws_the_picture_that_python_draws(page, pipe, solver):
    page.get_by_label("Seed", exact=True).fill("7")
    page.get_by_label("Class").select_option("boot")
    page.get_by_label("Solver").select_option(solver)
    page.get_by_label("Evaluations").fill("6")
    page.get_by_role("button", name="Draw").click()
    page.wait_for_function("document.getElementById('status').textContent.startsWith('Seed 7, 6 evaluations')")
    assert page.get_by_role("img", name="Picture of seed 7").is_visible()
    pixels = page.evaluate(
        "Array.from(document.getElementById('picture').getContext('2d').getImageData(0, 0, 8, 8).data)"
    )
    found = np.array(pixels).reshape(8, 8, 4)[..., 0]
    options = {"solver": solver, "num_inference_steps": 6, "class_labels": "boot", "engine": "eager"}
    expected = pipe(seeds=[7], output_type="pt", progress=False, **options).images
    expected = unit_to_uint8(torch.as_tensor(expected))[0, 0].numpy()
    assert (np.abs(found - expected.astype(int)) <= 1).mean() > 0.9  # a spike that flips by rounding may change some
    rate = page.locator("#rate").text_content()
    assert 0 < float(rate.rstrip(" %")) < 100
    assert page.locator("#layers li").count() == len(pipe.unet.neurons())
    widths = page.evaluate("Array.from(document.querySelectorAll('#layers .bar'), (bar) => bar.offsetWidth)")
    rates = [float(text.rstrip(" %")) for text in page.locator("#layers .value").all_text_contents()]
    assert widths.index(max(widths)) == rates.index(max(rates)) and len(set(widths)) > 3
    assert page.get_by_role("link", name="Save as PNG").get_attribute("href").startswith("data:image/png")


def test_keyboard_and_stop(page):
    page.get_by_label("Seed", exact=True).focus()
    order = []
    for _ in range(6):
        order.append(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Tab")
    assert order == ["seed", "class", "solver", "steps", "draw", "next"]
    page.get_by_label("Evaluations").fill("10")
    page.get_by_label("Evaluations").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#steps-shown").text_content() == "11"
    page.keyboard.press("End")
    page.get_by_label("Seed", exact=True).focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Stop").click()
    page.wait_for_function("document.getElementById('status').textContent.startsWith('Stopped after')")
    page.get_by_label("Evaluations").fill("2")
    page.get_by_role("button", name="Next seed").click()
    page.wait_for_function("document.getElementById('status').textContent.startsWith('Seed 1, 2 evaluations')")


@pytest.mark.parametrize("value", ["-1", "4294967296", "1.5", ""])
def test_a_bad_seed_does_not_draw(page, value):
    page.get_by_label("Seed", exact=True).fill(value)
    page.get_by_role("button", name="Draw").click()
    assert page.locator("#status").text_content() == "Ready"
    assert page.evaluate("!document.getElementById('seed').validity.valid")


@pytest.mark.parametrize("width", [320, 360, 1280])
def test_no_sideways_scrolling(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.get_by_label("Evaluations").fill("2")
    page.get_by_role("button", name="Draw").click()
    page.wait_for_function("document.getElementById('status').textContent.startsWith('Seed 0, 2 evaluations')")
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_distilled_model_keeps_to_its_time_steps(browser, tmp_path):
    needs("npm")
    pipe = pipeline_of(timesteps=[999, 500, 120])
    pipe.unet.load_state_dict(halve(pipe.unet.state_dict()))
    export_web(pipe, tmp_path / "page", name="three")
    with served(tmp_path / "page") as address:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_function("document.getElementById('status').textContent === 'Ready'")
        assert page.get_by_label("Evaluations").is_disabled() and page.get_by_label("Solver").is_disabled()
        assert "distilled to 3 evaluations" in page.locator("#about").text_content()
        page.get_by_role("button", name="Draw").click()
        page.wait_for_function("document.getElementById('status').textContent.startsWith('Seed 0, 3 evaluations')")
        found = page.evaluate(
            "Array.from(document.getElementById('picture').getContext('2d').getImageData(0, 0, 8, 8).data)"
        )
        page.close()
    expected = pipe(seeds=[0], output_type="pt", progress=False, engine="eager").images
    expected = unit_to_uint8(torch.as_tensor(expected))[0, 0].numpy()
    assert (np.abs(np.array(found).reshape(8, 8, 4)[..., 0] - expected.astype(int)) <= 1).mean() > 0.9


def loaded(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.wait_for_function("document.getElementById('status').textContent === 'Ready'")
    return page


def picture(page):
    """Draw, and return the grey levels [8, 8]."""
    page.get_by_role("button", name="Draw").click()
    page.wait_for_function("document.getElementById('status').textContent.startsWith('Seed ')")
    pixels = "Array.from(document.getElementById('picture').getContext('2d').getImageData(0, 0, 8, 8).data)"
    return np.array(page.evaluate(pixels)).reshape(8, 8, 4)[..., 0]


def test_the_page_starts_with_the_default_sampler_and_shows_its_command(browser, sddpm, tmp_path, monkeypatch):
    needs("npm")
    cache = web.default_cache()
    monkeypatch.setattr(web, "default_cache", lambda: cache)
    pipe = pipeline_of(num_classes=2, names=["1", "a boot"], scale=1.02)
    pipe.unet.load_state_dict(halve(pipe.unet.state_dict()))
    sampler = {"solver": "dpm++", "timesteps": [999, 400, 20], "x0_scale": 1.05, "noise_clip": 0.5}
    pipe.register_to_config(samplers={"quick": sampler}, sampler="quick")
    pipe.save_pretrained(tmp_path / "tiny")
    export_web(pipe, tmp_path / "page", name="tiny")
    with served(tmp_path / "page") as address:
        page = loaded(browser, address)
        command = page.locator("#command")
        start = "sddpm sample tiny --solver dpm++ --timesteps 999,400,20 --x0-scale 1.05 --noise-clip 0.5"
        assert command.text_content() == f"{start} --class 0 --seeds 0"
        assert "draws the same picture, up to rounding" in page.locator("#same").text_content()
        page.get_by_label("Class").select_option("a boot")
        page.get_by_label("Seed", exact=True).fill("7")
        assert command.text_content() == f"{start} --class 'a boot' --seeds 7"
        found = {command.text_content(): picture(page)}
        page.get_by_label("Solver").select_option("ddim")  # of which the sampler says nothing
        page.get_by_label("Class").select_option("none")
        other = "sddpm sample tiny --solver ddim --steps 3 --x0-scale 1.02 --class none"
        assert command.text_content() == f"{other} --seeds 7"
        found[command.text_content()] = picture(page)
        page.get_by_role("button", name="Next seed").click()
        assert command.text_content() == f"{other} --seeds 8"
        page.close()
    for line, pixels in found.items():
        code, _, error = sddpm(*shlex.split(line)[1:], "--engine", "eager", "--out", "x.npz", "--force")
        assert code == 0, error
        expected = np.load("x.npz")["arr_0"][0, ..., 0].astype(int)
        assert (np.abs(pixels - expected) <= 1).mean() > 0.9  # a spike that flips by rounding may change some


def test_a_page_without_spikes_says_so_and_other_thresholds_have_no_command(browser, tmp_path):
    needs("npm")
    quantized = pipeline_of("unipc", neuron="quantized_relu", T=1, pure=True, scale=1.03)
    export_web(quantized, tmp_path / "quantized", name="tiny")
    export_web(pipeline_of(), tmp_path / "spiking", thresholds={"*": 0.9}, name="tiny")
    with served(tmp_path / "quantized") as address:
        page = loaded(browser, address)
        assert page.locator("#title").text_content() == "tiny, drawn without spikes"
        assert page.locator("#about").text_content().startswith("A network without spikes")
        assert "T =" not in page.locator("#facts").text_content()
        own = "sddpm sample tiny --solver dpm++ --steps 10 --x0-scale 1.03 --seeds 0"  # the page has no unipc
        assert page.locator("#command").text_content() == own
        page.close()
    with served(tmp_path / "spiking") as address:
        page = loaded(browser, address)
        assert page.locator("#title").text_content() == "tiny, drawn by spikes"
        assert "T = 2 SNN time steps" in page.locator("#facts").text_content()
        assert page.locator("#same").is_hidden() and page.locator("#facts").is_visible()
        page.close()


@pytest.mark.parametrize(
    ("solver", "steps", "expected"),
    [
        ("dpm++", 3, {"stored": [999, 400, 20], "x0Scale": 1.05, "noiseClip": 0.5}),
        ("ddim", 3, {"stored": None, "x0Scale": 1.02, "noiseClip": None}),
        ("dpm++", 4, {"stored": [999, 722, 302, 30], "x0Scale": 1.02, "noiseClip": None}),
        ("ddim", 4, {"stored": [999, 722, 302, 30], "x0Scale": 1.02, "noiseClip": None}),
        ("dpm++", 5, {"stored": None, "x0Scale": 1.02, "noiseClip": None}),
    ],
)
def test_time_steps_of_a_sampler_are_for_its_solver_alone(script, solver, steps, expected):
    start = {"solver": "dpm++", "steps": 3, "timesteps": [999, 400, 20], "x0_scale": 1.05, "noise_clip": 0.5}
    model = {"start": start, "timesteps": [999, 722, 302, 30], "x0_scale": 1.02}
    assert script("([model, solver, steps]) => settings(model, solver, steps)", [model, solver, steps]) == expected


def test_the_folder_is_known_and_replaced(folder, pipe):
    assert {file.name for file in folder.iterdir()} == PAGE_PARTS and folder_kind(folder) == "page"
    export_web(pipe, folder, name="tiny")
    facts = json.loads((folder / "model.json").read_text())
    assert facts["name"] == "tiny" and facts["neurons"][0] == 8 * 8 * 8


def test_models_that_the_page_cannot_draw_with(tmp_path):
    for config, reason in [({"dims": 1}, "1 or 3 channels"), ({"pure": True, "synaptic_currents": True}, "currents")]:
        with pytest.raises(UserError, match=reason):
            export_web(pipeline_of(**config), tmp_path / "page")


def test_without_npm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="npm is not installed"):
        web.runtime_files(tmp_path / "cache")


def test_when_npm_fails(tmp_path, monkeypatch):
    (tmp_path / "npm").write_text("#!/bin/sh\necho 'npm ERR! network' >&2\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UserError, match=r"npm cannot download onnxruntime-web@.*: npm ERR! network"):
        web.runtime_files(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_the_page_of_the_packaged_four_evaluation_model_is_small(tmp_path):
    needs("npm")
    export_web(load_pipeline("fashion-mnist-4"), tmp_path / "page")
    assert sum(file.stat().st_size for file in (tmp_path / "page").iterdir()) <= 25e6
