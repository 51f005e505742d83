"""The Inception network: against a second, independent writing of it, and what a file of weights has to hold."""

import pytest
import torch

from sddpm.data import open_dataset
from sddpm.errors import UserError
from sddpm.evaluation.features.extractor import Extractor, inception_extractor
from sddpm.evaluation.features.inception import FEATURES, InceptionV3
from sddpm.evaluation.features.preprocess import preprocess
from sddpm.evaluation.features.weights import load_weights
from tests.helpers.inception_by_hand import block_e, max_of_neighbours, mean_of_neighbours
from tests.helpers.inception_by_hand import features as features_by_hand


@pytest.fixture(scope="module")
def picture():
    return torch.rand(1, 3, 299, 299, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1


def test_all_layers_equal_an_independent_forward(random_inception, picture):
    _, state = random_inception
    network = InceptionV3(list(FEATURES))
    network.load_state_dict(state)
    found = network.double()(picture)
    expected = features_by_hand({key: value.double() for key, value in state.items()}, picture)
    assert found.keys() == expected.keys() == FEATURES.keys()
    for name, values in found.items():
        assert values.shape == (1, FEATURES[name][1])
        assert values.std() > 1e-3  # so that equality means something
        torch.testing.assert_close(values, expected[name], rtol=1e-9, atol=1e-10)


def test_real_weights_give_the_features_of_the_independent_forward(real_inception):
    images = torch.randint(256, (1, 3, 32, 32), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    found = inception_extractor(["64", "192", "spatial", "768"], weights=real_inception)(images)
    state = torch.load(real_inception, map_location="cpu", weights_only=True)
    expected = features_by_hand(state, preprocess(images, "pytorch-fid"))
    for name, values in found.items():
        torch.testing.assert_close(values, expected[name], rtol=1e-4, atol=1e-5)


def test_folded_batch_norms_change_no_more_than_rounding(real_inception, random_inception, shared_dir):
    """The folded float32 network is as near to float64 as the unfolded one is."""
    images = open_dataset("cifar10", shared_dir / "data" / "cifar10", split="test", limit=2).gather(range(2))
    x = preprocess(images, "pytorch-fid")
    for path, names in ((real_inception, ["64", "192", "spatial", "768"]), (random_inception[0], ["2048", "logits"])):
        plain = InceptionV3(names)
        load_weights(plain, path, "a test")
        exact = InceptionV3(names)
        load_weights(exact, path, "a test")
        with torch.inference_mode():
            truth, before = exact.double()(x.double()), plain(x)
            folded = inception_extractor(names, weights=path)(images)
        for name in names:
            scale = truth[name].std()
            error = ((folded[name] - truth[name]) / scale).square().mean().sqrt()
            unfolded = ((before[name] - truth[name]) / scale).square().mean().sqrt()
            assert error < 1e-5 and error < 3 * unfolded + 1e-7, (name, error, unfolded)


def test_the_last_block_pools_by_maximum_and_the_one_before_by_mean(random_inception):
    state = {key: value.double() for key, value in random_inception[1].items()}
    network = InceptionV3(["2048"]).double()
    network.load_state_dict(state, strict=False)
    generator = torch.Generator().manual_seed(4)
    for name, channels, right in (("Mixed_7b", 1280, mean_of_neighbours), ("Mixed_7c", 2048, max_of_neighbours)):
        x = torch.rand(1, channels, 8, 8, generator=generator, dtype=torch.float64)
        found = network.get_submodule(name)(x)
        for pool in (mean_of_neighbours, max_of_neighbours):
            assert torch.allclose(found, block_e(state, name, x, pool(x)), atol=1e-10) == (pool is right)


def test_only_the_layers_that_are_needed_are_asked_for(real_inception):
    for name in ("64", "192", "768", "spatial"):
        assert inception_extractor([name], weights=real_inception).lengths == {name: FEATURES[name][1]}
    for name, layer in (("2048", "Mixed_7a"), ("logits", "Mixed_7a")):
        with pytest.raises(UserError, match=rf"lacks {layer}.branch3x3_1.conv.weight .*Mixed_7c.*needed for .*{name}"):
            inception_extractor([name], weights=real_inception)


def test_a_single_missing_or_misshapen_entry_is_named(random_inception, tmp_path):
    _, state = random_inception
    network = InceptionV3(["192"])
    torch.save(
        {key: value for key, value in state.items() if key != "Conv2d_3b_1x1.bn.running_var"}, tmp_path / "a.pth"
    )
    with pytest.raises(UserError, match=r"lacks Conv2d_3b_1x1\.bn\.running_var"):
        load_weights(network, tmp_path / "a.pth", "a test")
    torch.save(state | {"Conv2d_3b_1x1.bn.bias": torch.zeros(3)}, tmp_path / "b.pth")
    with pytest.raises(UserError, match=r"Conv2d_3b_1x1.bn.bias has the shape \[3\], not \[80\]"):
        load_weights(network, tmp_path / "b.pth", "a test")


def test_grey_images_are_repeated_to_rgb(random_inception):
    extractor = inception_extractor(["64"], weights=random_inception[0])
    grey = torch.randint(256, (2, 1, 9, 9), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    colour = grey.expand(-1, 3, -1, -1).contiguous()
    torch.testing.assert_close(extractor(grey)["64"], extractor(colour)["64"], rtol=1e-5, atol=1e-5)


def test_features_are_computed_without_tf32(tmp_path):
    seen = []

    def compute(images):
        seen.append(torch.backends.cudnn.allow_tf32)
        return {"x": images.float().mean((1, 2, 3))[:, None]}

    before = torch.backends.cudnn.allow_tf32
    extractor = Extractor({"x": 1}, {}, tmp_path, compute, 2)
    assert extractor(torch.full((3, 1, 4, 4), 7, dtype=torch.uint8))["x"].tolist() == [[7.0]] * 3
    assert seen == [False, False] and torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 8, 8, dtype=torch.uint8)])
def test_what_is_no_image_is_refused(random_inception, images):
    with pytest.raises(UserError, match="images must be uint8"):
        inception_extractor(["64"], weights=random_inception[0])(images)


def test_unknown_names_are_refused(random_inception):
    with pytest.raises(UserError, match="64, 192, spatial, 768, 2048, logits"):
        inception_extractor(["1024"], weights=random_inception[0])
    with pytest.raises(UserError, match="pytorch-fid, clean-fid"):
        inception_extractor(["64"], weights=random_inception[0], preprocessing="tensorflow")
