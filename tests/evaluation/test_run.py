"""Whole evaluations in FAD features of random weights, which take no time: resuming, sharing, refusing."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sddpm.data import open_dataset
from sddpm.data.registry import find_dataset
from sddpm.diffusion.solvers import make_scheduler
from sddpm.errors import UserError
from sddpm.evaluation import (
    EvaluationSettings,
    SamplingSettings,
    StatisticsSettings,
    TrainingData,
    build_statistics,
    evaluate,
    read_statistics,
)
from sddpm.evaluation import images as images_module
from sddpm.evaluation.features.extractor import fad_extractor, inception_extractor
from sddpm.evaluation.features.fad import FadEncoder
from sddpm.evaluation.protocols import OWN_STATISTICS
from sddpm.evaluation.shards import Shards
from sddpm.evaluation.sources import Reference, other_crop
from sddpm.evaluation.statistics_files import StatisticsFile, write_statistics
from sddpm.models import SpikingUNet2DModel
from sddpm.pipelines import SpikingDiffusionPipeline, load_pipeline
from tests.helpers.inception_by_hand import features as features_by_hand
from tests.helpers.resize_weights import bilinear_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    unet = SpikingUNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, base_channels=8, channel_mult=(1,), num_res_blocks=1, T=2
    )
    folder = tmp_path_factory.mktemp("saved") / "model"
    SpikingDiffusionPipeline(unet, make_scheduler("ddpm")).save_pretrained(folder)
    return folder


@pytest.fixture
def settings(tmp_path, random_fad):
    """settings(**changes): FAD of a folder of images against the bundled digits."""

    def make(**changes):
        values = {
            "reference": "digits",
            "metrics": ("fad",),
            "split": "train",
            "fad_weights": random_fad,
            "work": tmp_path / "work",
            "device": "cpu",
            "copies": False,
        }
        if find_dataset(str(changes.get("reference", "digits"))) is None:
            del values["split"]  # only data sets given by name have any
        return EvaluationSettings(**{**values, **changes})

    return make


def npz(path, pixels):
    np.savez(path, pixels.permute(0, 2, 3, 1).numpy())
    return str(path)


def by_numpy(a, b):
    """Squared Fréchet distance of vectors by way of the eigenvalues of the (not symmetric) product."""
    mean = ((a.mean(0) - b.mean(0)) ** 2).sum()
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return mean + np.trace(s + t) - 2 * np.sqrt(np.linalg.eigvals(s @ t).real.clip(0)).sum()


def value(evaluation, i=0):
    return evaluation.measurements[i].score.value


def test_images_against_images(settings, tmp_path, blobs, random_fad):
    a, b = blobs(90, 0), blobs(100, 1, shift=20)
    found = evaluate(settings(source=npz(tmp_path / "a.npz", a), reference=npz(tmp_path / "b.npz", b)))
    extractor = fad_extractor(random_fad, 1)
    rows = [extractor(x)["fad"].double().numpy() for x in (a, b)]
    assert value(found) == pytest.approx(by_numpy(*rows), rel=1e-6)
    assert found.measurements[0].departures == [
        "90 samples instead of 50,000",
        "own reference statistics instead of the published",
    ]
    assert torch.equal(found.grid, a[:64])


def test_a_data_set_with_itself_is_at_zero_but_must_be_allowed(settings, tmp_path, blobs):
    same = {"source": npz(tmp_path / "a.npz", blobs(90, 0)), "reference": npz(tmp_path / "b.npz", blobs(90, 0))}
    with pytest.raises(UserError, match="the reference overlaps the samples: 90 of 90"):
        evaluate(settings(**same))
    found = evaluate(settings(**same, allow_overlap=True))
    assert 0 <= value(found) < 1e-6
    assert found.facts["exact_copies_of_reference"] == 90


def test_samples_of_a_model_are_those_of_the_pipeline_in_8_bits(settings, model, random_fad):
    sampling = SamplingSettings(num_inference_steps=2, first_seed=5, batch_size=30)
    found = evaluate(settings(source=str(model), samples=70, sampling=sampling))
    images = load_pipeline(model)(
        seeds=range(5, 75), batch_size=30, num_inference_steps=2, output_type="pt", progress=False
    ).images
    expected = (images * 255).round().to(torch.uint8)
    assert torch.equal(found.grid, expected[:64])
    assert found.facts["samples"]["seeds"] == [5, 74]
    extractor = fad_extractor(random_fad, 1)
    digits = open_dataset("digits", image_size=8).gather(range(1797))
    rows = [extractor(x)["fad"].double().numpy() for x in (expected, digits)]
    assert value(found) == pytest.approx(by_numpy(*rows), rel=1e-6)


def test_an_interrupted_evaluation_goes_on(settings, model, monkeypatch):
    sampling = SamplingSettings(num_inference_steps=2, batch_size=20)
    request = settings(source=str(model), samples=70, sampling=sampling)
    whole = evaluate(settings(source=str(model), samples=70, sampling=sampling, work=request.work / "other"))
    made = []
    stream = SpikingDiffusionPipeline.stream

    def interrupted(self, seeds, **options):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(list(seeds))
        return stream(self, seeds, **options)

    monkeypatch.setattr(SpikingDiffusionPipeline, "stream", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(request)
    assert [seeds[0] for seeds in made] == [0, 20]

    def counted(self, seeds, **options):
        made.append(list(seeds))
        return stream(self, seeds, **options)

    monkeypatch.setattr(SpikingDiffusionPipeline, "stream", counted)
    assert value(evaluate(request)) == value(whole)
    assert [seeds[0] for seeds in made] == [0, 20, 40, 60]
    # More samples later: the whole shards that are there stay.
    evaluate(settings(source=str(model), samples=80, sampling=sampling))
    assert [(seeds[0], seeds[-1]) for seeds in made[4:]] == [(60, 79)]
    # Another threshold: none of them fit.
    evaluate(settings(source=str(model), samples=66, sampling=SamplingSettings(2, v_threshold=0.9, batch_size=66)))
    assert made[5] == list(range(66))


def test_features_are_not_computed_twice(settings, tmp_path, blobs, monkeypatch):
    request = settings(source=npz(tmp_path / "a.npz", blobs(300, 0)))
    first = evaluate(request)
    written = []
    write = Shards.write
    monkeypatch.setattr(Shards, "write", lambda self, i, rows: (written.append(i), write(self, i, rows)))
    assert value(evaluate(request)) == value(first)
    assert written == []
    next((tmp_path / "work" / "features").rglob("*00000256-*.npy")).unlink()
    assert value(evaluate(request)) == value(first)
    assert len(written) == 1


def test_a_damaged_shard_is_named(settings, tmp_path, blobs):
    request = settings(source=npz(tmp_path / "a.npz", blobs(90, 0)))
    evaluate(request)
    shard = next((tmp_path / "work" / "features").rglob("*.npy"))
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(UserError, match=r"\.npy is damaged .*delete it"):
        evaluate(request)


def test_statistics_files_stand_for_their_images(settings, tmp_path, blobs, random_fad):
    a, b = npz(tmp_path / "a.npz", blobs(90, 0)), npz(tmp_path / "b.npz", blobs(100, 1, 20))
    out = tmp_path / "b-stats.npz"
    build_statistics(StatisticsSettings(b, out, fad_weights=random_fad, work=tmp_path / "work", device="cpu"))
    assert read_statistics(out).gaussians["pool"].count == 100
    against_images = evaluate(settings(source=a, reference=b))
    against_file = evaluate(settings(source=a, reference=None, fad_statistics=out))
    assert value(against_file) == pytest.approx(value(against_images), rel=1e-9)
    computed = len(list((tmp_path / "work" / "features").iterdir()))
    both = evaluate(settings(source=a, reference=npz(tmp_path / "c.npz", blobs(100, 2)), fad_statistics=out))
    assert value(both) == value(against_file)
    assert len(list((tmp_path / "work" / "features").iterdir())) == computed  # none of the reference, which is known
    assert OWN_STATISTICS in against_file.measurements[0].departures
    gaussian = read_statistics(out).gaussians["pool"]
    np.savez(tmp_path / "theirs.npz", mu=gaussian.mean.numpy(), sigma=gaussian.covariance.numpy())
    against_theirs = evaluate(settings(source=a, reference=None, fad_statistics=tmp_path / "theirs.npz"))
    assert value(against_theirs) == pytest.approx(value(against_file), rel=1e-9)
    assert OWN_STATISTICS not in against_theirs.measurements[0].departures


def test_a_score_says_how_its_statistics_file_was_made(settings, tmp_path, blobs, random_fad):
    """Fewer images, another split, images left out, and other weights than those of the samples' features."""
    a, out = npz(tmp_path / "a.npz", blobs(90, 0)), tmp_path / "digits.npz"
    torch.manual_seed(5)
    torch.save(FadEncoder(1).state_dict(), other := tmp_path / "other.pth")
    made = StatisticsSettings(
        "digits", out, image_size=8, limit=80, fad_weights=other, work=tmp_path / "work", device="cpu"
    )
    build_statistics(made)
    request = settings(source=a, reference=None, fad_statistics=out)
    found = evaluate(replace(request, protocol="fsddim")).measurements[0].departures
    assert {
        "train split instead of test",
        "80 reference images instead of all",
        "reference statistics made with other weights",
        OWN_STATISTICS,
    } <= set(found)
    build_statistics(replace(made, split="train", limit=None, fad_weights=random_fad))
    found = (
        evaluate(settings(source=a, reference=None, fad_statistics=out, protocol="sddpm")).measurements[0].departures
    )
    assert found == ["90 samples instead of 50,000", OWN_STATISTICS]
    file = read_statistics(out)
    write_statistics(out, StatisticsFile(file.gaussians, file.about | {"network": "another"}))
    with pytest.raises(UserError, match="has features of another, not of fsvae-autoencoder: choose another file"):
        evaluate(settings(source=a, reference=None, fad_statistics=out))


@pytest.mark.parametrize("option", ["dim", "sfid", "preprocessing", "inception"])
def test_statistics_for_fad_have_no_options_of_inception(tmp_path, random_fad, option):
    other = {"dim": 64, "sfid": True, "preprocessing": "clean-fid", "inception": random_fad}[option]
    with pytest.raises(UserError, match=f"`{option}` is only for Inception's features"):
        build_statistics(StatisticsSettings("digits", tmp_path / "x.npz", fad_weights=random_fad, **{option: other}))


def test_images_are_not_sampled(settings, tmp_path, blobs):
    source = npz(tmp_path / "a.npz", blobs(90, 0))
    for option, other in (("num_inference_steps", 5), ("first_seed", 1), ("class_label", "3"), ("v_threshold", 0.9)):
        with pytest.raises(UserError, match=f"`{option}` is only for models: leave it out"):
            evaluate(settings(source=source, sampling=SamplingSettings(**{option: other})))


def test_inception_metrics_in_one_pass(settings, tmp_path, blobs, random_inception):
    a, b = npz(tmp_path / "a.npz", blobs(8, 0)), npz(tmp_path / "b.npz", blobs(8, 1, 60))
    found = evaluate(
        settings(source=a, reference=b, metrics=("kid", "precision"), dim=64, inception=random_inception[0])
    )
    assert [each.label for each in found.measurements] == ["kid-64", "precision-64"]
    extractor = inception_extractor(["64"], weights=random_inception[0])
    x, y = (extractor(blobs(8, *which))["64"].double() for which in ((0,), (1, 60)))
    k = lambda p, q: (p @ q.T / 64 + 1) ** 3  # noqa: E731
    among = sum((k(z, z).sum() - k(z, z).trace()) / 56 for z in (x, y))
    assert value(found) == pytest.approx(float(among - 2 * k(x, y).mean()), rel=1e-6)
    assert "64 features instead of 2048" in found.measurements[0].departures
    assert found.facts["weights"]["inception"]["path"] == str(random_inception[0])


@pytest.mark.slow
def test_fid_of_real_images_by_an_independent_way(settings, tmp_path, shared_dir, real_inception):
    """Real weights and images: network, preprocessing, moments and distance all computed a second time by others."""
    data = shared_dir / "data" / "cifar10"
    found = evaluate(
        settings(
            source="cifar10:test",
            reference="cifar10",
            data=str(data),
            samples=66,
            limit_reference=70,
            metrics=("fid",),
            dim=64,
            inception=real_inception,
        )
    )
    weights = torch.load(real_inception, map_location="cpu", weights_only=True)
    first = {key: x for key, x in weights.items() if key.startswith(("Conv2d_1", "Conv2d_2"))}
    rows = []
    for split, count in (("test", 66), ("train", 70)):
        images = open_dataset("cifar10", data, split=split, limit=count).gather(range(count))
        w = torch.from_numpy(bilinear_weights(32))
        x = torch.einsum("ih,jw,bchw->bcij", w, w, images.double() / 127.5 - 1).float()
        rows.append(torch.cat([features_by_hand(first, part)["64"] for part in x.split(10)]).double().numpy())
    assert value(found) == pytest.approx(by_numpy(*rows), rel=1e-3)
    assert found.measurements[0].label == "fid-64"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 64}, "64 samples are too few .* 64 features"),
        ({"samples": 39, "interval": True}, "an interval needs at least 40 samples, not 39"),
        ({"samples": 0}, "`samples` must be at least 1"),
        ({"samples": 91}, "has 90 images, fewer than `samples=91`"),
        ({"limit_reference": 60}, "60 reference images are too few"),
        ({"reference": None}, "give `reference`"),
        ({"reference": "nothing.npz"}, "nothing.npz"),
        ({"source": "nowhere"}, "nowhere"),
        ({"fad_weights": None}, "`fad_weights=PATH`"),
        ({"reference": "other", "split": "test"}, "`split` is only for images: leave it out"),
        ({"reference": "other", "limit_reference": 7}, "`limit_reference` is only for images: leave it out"),
        ({"dim": 100}, "`dim` must be one of 64, 192, 768, 2048, not 100"),
        ({"metrics": ("mmd",)}, "unknown metric 'mmd'"),
        ({"protocol": "edm"}, "unknown protocol 'edm'"),
        ({"fad_statistics": "other"}, "has 5 dimensions, the features 64"),
        ({"reference": "other"}, "cannot be measured against .*`fad_statistics`"),
    ],
)
def test_bad_requests_are_refused_in_one_line(settings, tmp_path, blobs, changes, message):
    np.savez(tmp_path / "other.npz", mu=np.zeros(5), sigma=np.eye(5))
    request = {"source": npz(tmp_path / "a.npz", blobs(90, 0)), **changes}
    request = {key: tmp_path / "other.npz" if x == "other" else x for key, x in request.items()}
    if "reference" in changes and changes["reference"] == "other":
        request["reference"] = str(request["reference"])
    with pytest.raises(UserError, match=message) as caught:
        evaluate(settings(**request))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("v_threshold", [0.0, -0.5])
def test_a_threshold_of_zero_or_below_is_refused(settings, model, v_threshold):
    sampling = SamplingSettings(num_inference_steps=1, v_threshold=v_threshold)
    with pytest.raises(UserError, match="v_threshold must be a positive number"):
        evaluate(settings(source=str(model), samples=70, sampling=sampling))


def test_kid_against_a_statistics_file_is_refused(settings, tmp_path, blobs, random_inception):
    np.savez(tmp_path / "stats.npz", mu=np.zeros(64), sigma=np.eye(64))
    a = npz(tmp_path / "a.npz", blobs(8, 0))
    with pytest.raises(UserError, match="kid needs images"):
        evaluate(
            settings(
                source=a,
                reference=str(tmp_path / "stats.npz"),
                metrics=("kid",),
                dim=64,
                inception=random_inception[0],
            )
        )
    with pytest.raises(UserError, match=r"fid has 64 dimensions, the features 192: .*`dim`"):
        evaluate(
            settings(
                source=a,
                reference=str(tmp_path / "stats.npz"),
                metrics=("fid",),
                dim=192,
                inception=random_inception[0],
            )
        )


def test_a_folder_written_to_during_the_evaluation(settings, tmp_path, blobs, monkeypatch):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(blobs(70, 0)):
        Image.fromarray(image[0].numpy()).save(folder / f"{i:03d}.png")
    write = Shards.write

    def write_and_disturb(self, i, rows):
        write(self, i, rows)
        (folder / "late.png").write_bytes(b"more")

    monkeypatch.setattr(Shards, "write", write_and_disturb)
    with pytest.raises(UserError, match=r"was written to during the evaluation .*late\.png"):
        evaluate(settings(source=str(folder)))


def write_folder(folder, pixels):
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(pixels):
        Image.fromarray(image[0].numpy()).save(folder / f"{i:03d}.png")
    return str(folder)


def test_a_folder_a_zip_and_an_npz_of_the_same_images(settings, tmp_path, blobs):
    pixels = blobs(70, 0)
    folder = write_folder(tmp_path / "images", pixels)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in sorted((tmp_path / "images").iterdir()):
            archive.write(path, path.name)
    sources = [folder, str(tmp_path / "images.zip"), npz(tmp_path / "images.npz", pixels)]
    found = [evaluate(settings(source=source)) for source in sources]
    assert value(found[0]) == value(found[1]) == value(found[2]) > 0
    assert len({each.facts["samples"]["pixels"] for each in found}) == 1


def test_a_damaged_image_is_left_out_and_said(settings, tmp_path, blobs):
    folder = write_folder(tmp_path / "images", blobs(71, 0))
    (tmp_path / "images" / "035.png").write_bytes(b"no picture")
    found = evaluate(settings(source=folder))
    assert "1 damaged image left out" in found.measurements[0].departures
    assert found.facts["samples"]["skipped_first"] == [("035.png", "not an image")]
    assert found.facts["samples"]["count"] == 70


def test_a_damaged_image_met_late_is_said(settings, tmp_path, blobs, monkeypatch):
    """Images that are not held in memory are decoded only when their turn comes."""
    monkeypatch.setattr(images_module, "_MEMORY_LIMIT", 0)
    folder = write_folder(tmp_path / "images", blobs(71, 0))
    (tmp_path / "images" / "035.png").write_bytes(b"no picture")
    found = evaluate(settings(source=folder))
    assert "1 damaged image left out" in found.measurements[0].departures


def test_a_reference_folder_written_to_during_the_evaluation(settings, tmp_path, blobs, monkeypatch):
    folder = tmp_path / "reference"
    write_folder(folder, blobs(70, 1))
    write = Shards.write
    late = lambda self, i, rows: (write(self, i, rows), (folder / "late.png").write_bytes(b"more"))  # noqa: E731
    monkeypatch.setattr(Shards, "write", late)
    with pytest.raises(UserError, match=r"reference was written to .*late\.png"):
        evaluate(settings(source=npz(tmp_path / "a.npz", blobs(70, 0)), reference=str(folder)))


def test_copies_are_looked_for_among_the_training_images(settings, tmp_path, blobs):
    """Also when the reference is a statistics file, and even if they are not here."""
    trained = npz(tmp_path / "trained.npz", blobs(120, 5))
    np.savez(tmp_path / "stats.npz", mu=np.zeros(64), sigma=np.eye(64))
    source = npz(tmp_path / "a.npz", torch.cat([blobs(60, 0), blobs(120, 5)[:20]]))
    request = settings(source=source, reference=None, fad_statistics=tmp_path / "stats.npz", copies=True)

    def copies(training):
        return evaluate(replace(request, training=training)).facts["near_copies"]

    found = copies(TrainingData(trained))
    assert found["training_images"] == 120 and found["count"] >= 20
    assert [(sample - 60, image, distance) for sample, image, distance in found["pairs"]] == [
        (i, i, 0.0) for i in range(20)
    ]
    assert copies(None) == {"why": "no training images are known: give `training`"}
    assert "gone.npz" in copies(TrainingData("gone.npz", required=False))["why"]
    with pytest.raises(UserError, match=r"gone\.npz"):
        copies(TrainingData("gone.npz"))


def test_copies_among_the_training_split_of_the_reference(settings, tmp_path, shared_dir):
    mnist = shared_dir / "data" / "mnist"
    first = open_dataset("mnist", mnist, split="train", limit=3).gather(range(3))
    source = npz(tmp_path / "a.npz", torch.cat([open_dataset("mnist", mnist, split="test").gather(range(67)), first]))
    found = evaluate(
        settings(
            source=source,
            reference="mnist",
            data=str(mnist),
            split="test",
            copies=True,
            limit_reference=500,
            allow_overlap=True,
        )
    )
    copies = found.facts["near_copies"]
    assert copies["training_images"] == 60_000
    assert [[67 + i, i, 0.0] for i in range(3)] == [list(pair) for pair in copies["pairs"][:3]]
    assert found.facts["exact_copies_of_reference"] == 67


def test_a_reference_cropped_otherwise_than_the_training_images_is_noticed(settings):
    request = settings(source="x", training=TrainingData("celeba", "faces.zip"))
    for crop, found in (("ddim64", "center148"), ("center148", None)):  # SDDPM trains on the latter, celeba's default
        file = Reference({"kind": "statistics", "made_with": {"images": "CelebA", "crop": crop}}, crop=crop)
        assert other_crop(request, file) == found
        images = Reference({"kind": "images", "path": "celeba"}, crop=crop)
        assert other_crop(request, images) == found
    assert other_crop(request, Reference({"kind": "images", "path": "lsun"}, crop="center")) is None
    assert other_crop(request, Reference({"kind": "statistics", "made_with": {}})) is None


def test_statistics_of_fewer_images_than_features_are_refused(tmp_path, blobs, random_inception):
    a = npz(tmp_path / "a.npz", blobs(64, 0))
    with pytest.raises(UserError, match=r"64 images are too few .* in 64 features: .*smaller `dim`$"):
        build_statistics(StatisticsSettings(a, tmp_path / "s.npz", dim=64, inception=random_inception[0]))


def test_statistics_files_say_what_made_them(tmp_path, random_fad, shared_dir):
    out = tmp_path / "s.npz"
    faces = str(shared_dir / "data" / "celeba64" / "celeba-aligned-89x109-10000.zip")
    weights = tmp_path / "fad.pth"
    torch.save(FadEncoder(3).state_dict(), weights)
    build_statistics(
        StatisticsSettings(
            "celeba", out, data=faces, image_size=64, limit=70, fad_weights=weights, work=tmp_path, device="cpu"
        )
    )
    found = read_statistics(out)
    assert found.gaussians["pool"].count == 70
    # SDDPM's crop of CelebA, which is this data set's default, by name.
    assert (found.about["images"], found.about["crop"], found.about["image_size"]) == ("celeba", "center148", 64)


def test_a_reference_of_statistics_and_images(settings, tmp_path, blobs, random_inception):
    """As ADM's batches are: the statistics are for FID, the images for what needs images."""
    images = blobs(70, 1, 20).permute(0, 2, 3, 1).numpy()
    mean, variance = np.linspace(0, 1, 64), np.linspace(0.5, 2, 64)
    np.savez(tmp_path / "both.npz", mu=mean, sigma=np.diag(variance), arr_0=images)
    np.savez(tmp_path / "images.npz", images)
    np.savez(tmp_path / "statistics.npz", mu=mean, sigma=np.diag(variance))
    source = npz(tmp_path / "a.npz", blobs(70, 0))

    def found(reference, *metrics):
        options = {"dim": 64, "inception": random_inception[0], "copies": True}
        result = evaluate(settings(source=source, reference=str(tmp_path / reference), metrics=metrics, **options))
        return [each.score.value for each in result.measurements], result.facts

    together, facts = found("both.npz", "fid", "kid", "precision")
    assert together[0] == found("statistics.npz", "fid")[0][0] != found("images.npz", "fid")[0][0]
    assert together[1:] == found("images.npz", "kid", "precision")[0]
    assert facts["near_copies"]["training_images"] == 70 and facts["reference"]["distinct"] == 70
    with pytest.raises(UserError, match="kid needs images"):
        found("statistics.npz", "fid", "kid")
