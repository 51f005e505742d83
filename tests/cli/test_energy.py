"""`sddpm energy` from the command line: files, refusals, the published figures."""

import csv
import json

import pytest
import torch
from PIL import Image

from sddpm.diffusion.solvers import make_scheduler
from sddpm.models import ANNUNet2DModel, SpikingUNet2DModel
from sddpm.pipelines import SpikingDiffusionPipeline

SIZE = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "base_channels": 8, "channel_mult": (1, 2),
        "num_res_blocks": 1}  # fmt: skip
QUICK = ("--count", 2, "--steps", 2)


def spiking(**options):
    """A network whose batch norms know their inputs, so that neurons fire."""
    torch.manual_seed(0)
    unet = SpikingUNet2DModel(**SIZE, **options).train()
    torch.nn.init.normal_(unet.readout.conv.weight)
    with torch.no_grad():
        for _ in range(20):
            unet(torch.randn(8, 1, 8, 8), torch.randint(1000, (8,)))
    return unet.eval()


def saved(folder, unet):
    SpikingDiffusionPipeline(unet, make_scheduler("ddim")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("saved") / "model", spiking(T=2))


def test_all_there_is(sddpm, model, tmp_path):
    code, out, _ = sddpm(
        "energy", model, *QUICK, "--layers", "--report", "r.html", "--json", "r.json", "--csv", "r.csv"
    )
    assert code == 0
    for words in ("T = 2; 2 samples, ddim with 2 steps", "45nm-memory", "ANN twin", "Published formula",
                  "Silent layers", "up.1.blocks.1.shortcut"):  # fmt: skip
        assert words in out
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["images"] == 2 and content["command"].startswith("sddpm energy") and content["neurons"]
    with (tmp_path / "r.csv").open() as file:
        assert {row["layer"] for row in csv.DictReader(file)} == {layer["name"] for layer in content["layers"]}
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_what_exists_is_not_replaced_unasked(sddpm, model, tmp_path):
    (tmp_path / "r.json").write_text("precious")
    code, _, err = sddpm("energy", model, *QUICK, "--json", "r.json")
    assert code == 2 and "r.json already exists" in err and (tmp_path / "r.json").read_text() == "precious"
    assert sddpm("energy", model, *QUICK, "--json", "r.json", "--force")[0] == 0
    assert json.loads((tmp_path / "r.json").read_text())["T"] == 2


def test_given_images(sddpm, model, tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        Image.new("L", (8, 8), 40 * i).save(tmp_path / "pictures" / f"{i}.png")
    code, out, _ = sddpm("energy", model, "--images", "pictures", "--steps", 2, "--count", 2)
    assert code == 0 and "2 given images with noise" in out
    code, out, _ = sddpm("energy", model, "--images", "digits", "--steps", 2)  # 8 unless said otherwise
    assert code == 0 and "8 given images with noise" in out


def test_images_of_another_size(sddpm, model, tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("L", (16, 16)).save(tmp_path / "pictures" / "a.png")
    code, _, err = sddpm("energy", model, "--images", "pictures", "--steps", 2)
    assert code == 2 and "trained on images of 8 x 8, not 16 x 16" in err
    code, out, _ = sddpm("energy", model, "--images", "pictures/a.png", "--steps", 2, "--resize", "bilinear")
    assert code == 0 and "1 given images" in out


def test_an_ann_is_reported_as_such(sddpm, tmp_path):
    saved(tmp_path / "ann", ANNUNet2DModel(**SIZE))
    code, out, _ = sddpm("energy", "ann", *QUICK, "--report", "r.html")
    assert code == 0 and "no spikes: an ANN" in out and "SNN time step" not in out
    assert "(products of activations)" in sddpm("energy", "ann", *QUICK, "--layers")[1]  # attention in its middle


def test_early_exit_and_table(sddpm, tmp_path):
    saved(tmp_path / "pure", spiking(T=4, pure=True))
    code, out, _ = sddpm("energy", "pure", *QUICK, "--layers")
    assert code == 0 and "time_embedding" not in out
    assert "time_embedding" in sddpm("energy", "pure", *QUICK, "--layers", "--time-layers")[1]
    code, out, _ = sddpm("energy", "pure", *QUICK, "--exit-tolerance", 1e9, "--report", "r.html")
    assert code == 0 and "of 4 SNN time steps on average" in out


@pytest.mark.parametrize("options", [(), ("--quiet",), ("--verbose", "--force")])
def test_the_published_figures(sddpm, options):
    code, out, _ = sddpm("energy", "--published", *options)
    assert code == 0
    for words in ("29.23 mJ", "29.21 mJ", "67,602,691", "10.97 mJ", "15.60 mJ", "22.96 mJ", "32.15 mJ"):
        assert words in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "MODEL is missing"),
        (("absent",), "no model at absent"),
        (("{model}", "--cost", "45mn"), "no cost model '45mn': did you mean 45nm"),
        (("{model}", "--cost", "bad.yaml"), "bad.yaml: the key ac_pj is missing"),
        (("{model}", "--cost", "negative.yaml"), "negative.yaml: mac_pj = -1 should be greater than or equal to 0"),
        (("{model}", "--cost", "45nm", "--cost", "45nm"), "--cost: two cost models are named '45nm'"),
        (("{model}", "--count", 0), "--count must be at least 1"),
        (("{model}", "--images", "nowhere"), "nowhere"),
        (("{model}", "--images", "digits", "--seeds", "0-3"), "--seeds is only for samples"),
        (("{model}", "--images", "digits", "--eta", 1), "--eta is only for samples"),
        (("{model}", "--images", "digits", "--x0-scale", 1.02), "--x0-scale is only for samples"),
        (("{model}", "--images", "digits", "--guidance-scale", 2), "--guidance-scale is only for samples"),
        (("{model}", "--data", "folder"), "--data is only for --images WHAT: leave it out"),
        (("{model}", "--split", "test"), "--split is only for --images WHAT"),
        (("{model}", "--resize", "bilinear"), "--resize is only for --images WHAT"),
        (("{model}", "--download"), "--download is only for --images WHAT"),
        (("--published", "--json", "r.json"), "--json needs MODEL: --published alone measures nothing"),
        (("--published", "--csv", "r.csv"), "--csv needs MODEL"),
        (("--published", "--report", "r.html"), "--report needs MODEL"),
        (("--published", "--cost", "45nm"), "--cost needs MODEL"),
        (("--published", "--layers"), "--layers needs MODEL"),
        (("--published", "--steps", 3), "--steps needs MODEL"),
        (("{model}", "--report", "."), ". is a folder"),
        (("{model}", "--json", "bad.yaml/r.json"), "is not a folder"),
        (("{model}", "--exit-tolerance", -1), "the exit tolerance must be a number of at least 0"),
        (("{model}", "--solver", "euler"), "euler"),
        (("{model}", "--steps", 0), "steps must be from 1 to 1000"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(sddpm, model, tmp_path, arguments, message):
    numbers = {
        "name": "a",
        "description": "b",
        "source": "c",
        "mac_pj": 1,
        "update_pj": 1,
        "leak_pj": 1,
        "memory": None,
    }
    (tmp_path / "bad.yaml").write_text(json.dumps(numbers))
    (tmp_path / "negative.yaml").write_text(json.dumps(numbers | {"ac_pj": 1, "mac_pj": -1}))
    before = sorted(tmp_path.rglob("*"))
    code, _, err = sddpm("energy", *[str(a).format(model=model) for a in arguments])
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert sorted(tmp_path.rglob("*")) == before
