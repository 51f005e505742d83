"""The Inception network: against a second, independent writing of it, and what a file of weights has to hold."""

import pytest
import torch
from inception_by_hand import features as features_by_hand

from sddpm.errors import UserError
from sddpm.evaluation.features.extractor import inception_extractor
from sddpm.evaluation.features.inception import FEATURES, InceptionV3
from sddpm.evaluation.features.preprocess import preprocess
from sddpm.evaluation.features.weights import load_weights


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


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 8, 8, dtype=torch.uint8)])
def test_what_is_no_image_is_refused(random_inception, images):
    with pytest.raises(UserError, match="images must be uint8"):
        inception_extractor(["64"], weights=random_inception[0])(images)


def test_unknown_names_are_refused(random_inception):
    with pytest.raises(UserError, match="64, 192, spatial, 768, 2048, logits"):
        inception_extractor(["1024"], weights=random_inception[0])
    with pytest.raises(UserError, match="pytorch-fid, clean-fid"):
        inception_extractor(["64"], weights=random_inception[0], preprocessing="tensorflow")
