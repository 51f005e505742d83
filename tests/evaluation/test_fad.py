"""FAD against the published statistics: the scores of real images that others have measured."""

import pytest
import torch
from scipy.linalg import sqrtm

from sddpm.data import open_dataset
from sddpm.errors import UserError
from sddpm.evaluation.features.extractor import fad_extractor
from sddpm.evaluation.features.fad import preprocess_fad
from sddpm.evaluation.metrics import Features, frechet
from sddpm.evaluation.statistics_files import read_statistics


def score(shared_dir, dataset, file, split):
    data = shared_dir / "data"
    images = open_dataset(dataset, data / dataset, split=split, image_size=32, limit=10_000)
    latents = fad_extractor(data / "fad" / f"{file}_64.pth", 1)(images.gather(list(range(10_000))))["fad"]
    published = read_statistics(data / "fad" / f"{file}_test_64.npz").gaussians["pool"]
    samples = Features("fad", latents.numpy())
    value = frechet(samples, Features("fad", None, published)).value
    mine, theirs = samples.gaussian.covariance.numpy(), published.covariance.numpy()
    trace = (mine + theirs - 2 * sqrtm(mine @ theirs).real).trace()
    apart = float((samples.gaussian.mean - published.mean).square().sum())
    assert value == pytest.approx(apart + trace, rel=1e-6)
    return value


@pytest.mark.parametrize(
    ("dataset", "file", "split", "published"),
    [
        ("mnist", "mnist", "test", 0.59),
        ("fashion-mnist", "fashion", "test", 0.43),
        pytest.param("mnist", "mnist", "train", 3.69, marks=pytest.mark.slow),
        pytest.param("fashion-mnist", "fashion", "train", 0.98, marks=pytest.mark.slow),
    ],
)
def test_real_images_score_as_published(shared_dir, dataset, file, split, published):
    assert score(shared_dir, dataset, file, split) == pytest.approx(published, abs=0.006)


def test_images_of_28_are_resized_as_the_data_layer_does(shared_dir):
    small, large = (
        open_dataset("mnist", shared_dir / "data" / "mnist", split="test", image_size=size, limit=20)
        for size in (28, 32)
    )
    assert torch.equal(preprocess_fad(small.gather(range(20))), preprocess_fad(large.gather(range(20))))


def test_weights_for_other_images_are_refused(random_fad):
    with pytest.raises(UserError, match=r"encoder.0.0.weight has the shape \[32, 1, 3, 3\], not \[32, 3, 3, 3\]"):
        fad_extractor(random_fad, 3)
