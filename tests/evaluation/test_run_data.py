"""A run is evaluated against what it was trained on, prepared as it was, unless something else is said."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sddpm.data import open_dataset
from sddpm.errors import UserError
from sddpm.evaluation import EvaluationSettings, SamplingSettings, TrainingData, evaluate
from sddpm.evaluation.features.fad import FadEncoder
from sddpm.evaluation.run_data import same_images, with_run_data
from sddpm.guidance import GuidanceSettings, guide
from sddpm.training import load_config, train


def a_run(folder, text):
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(text)
    return EvaluationSettings(str(folder))


def test_what_is_no_run_stays_as_it_is(tmp_path):
    for source in (tmp_path, tmp_path / "gone", "digits", "digits.npz"):
        assert with_run_data(EvaluationSettings(str(source))) == EvaluationSettings(str(source))


def test_a_run_knows_what_it_was_trained_on(tmp_path):
    celeba = "data: {dataset: celeba, path: faces.zip, image_size: 64, crop: ddim64, resize: box, limit: 90}\n"
    found = with_run_data(a_run(tmp_path, celeba))
    assert (found.reference, found.data, found.crop, found.resize) == ("celeba", "faces.zip", "ddim64", "box")
    assert (found.image_size, found.limit_reference) == (None, 90)
    assert with_run_data(found) == found
    found = with_run_data(a_run(tmp_path, "data: {dataset: folder, path: mine.zip}\n"))
    assert (found.reference, found.data, found.image_size) == ("mine.zip", None, 32)


def test_what_is_said_comes_first(tmp_path):
    settings = a_run(tmp_path, "data: {dataset: celeba, path: faces.zip, crop: ddim64, limit: 90, channels: 3}\n")
    said = replace(settings, data="elsewhere.zip", crop="center148", limit_reference=20, channels=1, image_size=8)
    found = with_run_data(said)
    assert (found.reference, found.data, found.crop, found.limit_reference) == (
        "celeba",
        "elsewhere.zip",
        "center148",
        20,
    )
    assert (found.channels, found.image_size) == (1, 8)
    same = with_run_data(replace(settings, reference="CelebA"))
    assert (same.data, same.crop) == ("faces.zip", "ddim64")
    other = with_run_data(replace(settings, reference="mine.zip"))
    assert (other.data, other.crop, other.channels, other.limit_reference) == (None, None, None, None)


def test_a_limit_is_one_of_the_split_trained_on(tmp_path):
    settings = a_run(tmp_path, "data: {dataset: mnist, limit: 90}\n")
    assert with_run_data(settings).limit_reference == 90
    assert with_run_data(replace(settings, split="test")).limit_reference is None
    assert with_run_data(replace(settings, protocol="fsddim")).limit_reference is None


def test_copies_are_looked_for_among_what_a_run_was_trained_on(tmp_path):
    settings = a_run(tmp_path, "data: {dataset: celeba, path: faces.zip, crop: ddim64, resize: box, channels: 3}\n")
    run = with_run_data(settings).training
    assert (run.images, run.data, run.crop, run.resize, run.required) == ("celeba", "faces.zip", "ddim64", "box", False)
    asked = with_run_data(replace(settings, training=TrainingData("CelebA", "elsewhere.zip"))).training
    assert (asked.data, asked.crop, asked.required) == ("elsewhere.zip", "ddim64", True)
    other = with_run_data(replace(settings, training=TrainingData("mine.zip"))).training
    assert (other.images, other.data, other.crop, other.required) == ("mine.zip", None, None, True)
    # The place of another reference is not the place of the training images.
    elsewhere = with_run_data(replace(settings, reference="mnist", data="digits/")).training
    assert elsewhere.data == "faces.zip"
    alone = with_run_data(replace(settings, metrics=("is",), data="here.zip")).training
    assert alone.data == "here.zip"
    assert same_images("Fashion_MNIST", "fashion-mnist") and same_images("a/b", "a/b")
    assert not same_images("a", "b") and not same_images("mnist", "cifar10")


@pytest.mark.parametrize(
    "text",
    [
        "data: [1]",
        "- 1",
        "data: {image_size: many}",
        "data: {",
        "data: {color: 3}",
        "data: {path: [a]}",
        "data: {limit: 2020-99-99}",
        "a: &a [x]\ndata: {path: *a}",
    ],
)
def test_a_damaged_config_is_refused(tmp_path, text):
    with pytest.raises(UserError, match=r"config\.yaml"):
        with_run_data(a_run(tmp_path, text))


@pytest.fixture(scope="module")
def mixed_run(tmp_path_factory):
    """A run on a folder of colour images of two sizes, none of them square, and weights for FAD."""
    tmp = tmp_path_factory.mktemp("mixed")
    (tmp / "images").mkdir()
    digits = open_dataset("digits").gather(range(90)).numpy()
    for i, digit in enumerate(digits):
        picture = Image.fromarray(np.repeat(digit[0][..., None], 3, 2))
        picture.resize((12, 16) if i % 2 else (20, 14)).save(tmp / "images" / f"{i:03d}.png")
    settings = ["data.dataset=folder", f"data.path={tmp / 'images'}", "data.image_size=8", "data.channels=1",
                "data.resize=box", "data.limit=80", "model.base_channels=8", "model.channel_mult=[1]", "model.T=2",
                "model.num_res_blocks=1", "train.steps=1", "train.batch_size=8", "train.sample_every=0",
                "train.tensorboard=false"]  # fmt: skip
    train(load_config("digits", settings), tmp / "run", device="cpu", progress=False)
    torch.manual_seed(0)
    torch.save(FadEncoder(1).state_dict(), tmp / "fad.pth")
    return tmp


def test_a_run_on_a_folder_of_mixed_sizes_evaluates(mixed_run, sddpm):
    options = {"metrics": ("fad",), "fad_weights": mixed_run / "fad.pth", "samples": 70, "device": "cpu"}
    sampling = SamplingSettings(num_inference_steps=1)
    found = evaluate(mixed_run / "run", **options, sampling=sampling, work=mixed_run / "work")
    reference = found.facts["reference"]
    assert (reference["path"], reference["count"], reference["image_size"]) == (str(mixed_run / "images"), 80, 8)
    assert (reference["channels"], reference["resize"]) == (1, "box")
    assert found.facts["near_copies"]["training_images"] == 80
    code, out, err = sddpm("evaluate", mixed_run / "run", "--metric", "fad", "--fad-weights", mixed_run / "fad.pth",
                           "--samples", 70, "--steps", 1, "--device", "cpu")  # fmt: skip
    assert code == 0, err
    assert f"{found.measurements[0].score.value:.6g}" in out and "among 80 images" in out


def test_a_run_on_a_folder_of_mixed_sizes_guides(mixed_run, sddpm):
    evaluation = EvaluationSettings(
        str(mixed_run / "run"),
        metrics=("fad",),
        fad_weights=mixed_run / "fad.pth",
        samples=70,
        sampling=SamplingSettings(num_inference_steps=1),
        device="cpu",
        work=mixed_run / "work",
    )
    settings = GuidanceSettings(evaluation, grid=(0.9,), refinements=0, resamples=20, proxy_images=8, seed_sets=1)
    report = guide(settings)
    assert report.facts["reference"]["count"] == 80 and "8 images of" in report.proxy.images
    code, out, err = sddpm("guide", mixed_run / "run", "--metric", "fad", "--fad-weights", mixed_run / "fad.pth",
                           "--samples", 70, "--steps", 1, "--device", "cpu", "--grid", "0.9", "--refine", 0,
                           "--resamples", 20, "--proxy-images", 8, "--seed-sets", 1, "--no-store")  # fmt: skip
    assert code == 0, err
    assert f"{report.trials[0].value:.6g}" in out


def test_scores_without_a_reference_do_not_need_the_data(tmp_path):
    settings = a_run(tmp_path, "data: {dataset: mnist}\n")
    assert with_run_data(replace(settings, metrics=("is",))).reference is None
    assert with_run_data(replace(settings, metrics=("is", "kid"))).reference == "mnist"
    assert with_run_data(replace(settings, metrics=("is",), reference="digits")).reference == "digits"


def test_images_that_a_release_does_not_name_are_unknown(tmp_path):
    settings = a_run(tmp_path, "data: {dataset: folder}\n")
    assert with_run_data(settings) == settings
