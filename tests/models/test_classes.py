"""Networks that know classes: the same network where a class has no effect yet, and three forms that agree."""

import pytest
import torch

from sddpm.errors import UserError
from sddpm.inference import compile_model
from sddpm.models import ANNUNet2DModel, SpikingUNet2DModel
from sddpm.models.early_exit import EarlyExit
from sddpm.models.folding import fold_time

SMALL = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "base_channels": 8, "channel_mult": (1, 2)}
X, T = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 10, 10, 999])
LABELS = torch.tensor([2, 0, 3, 3])  # of three classes: 3 is none


def make(kind, **config):
    torch.manual_seed(0)
    model = kind(**SMALL, num_res_blocks=1, **config)
    if kind is SpikingUNet2DModel:
        torch.nn.init.xavier_uniform_(model.readout.conv.weight)  # it starts near zero, which would hide errors
    else:
        torch.nn.init.xavier_uniform_(model.unet.conv_out.weight)
    return model.eval()


@pytest.mark.parametrize("kind", [SpikingUNet2DModel, ANNUNet2DModel])
@torch.no_grad()
def test_untrained_classes_change_nothing(kind):
    plain, conditional = make(kind), make(kind, num_classes=3)
    surplus = {name for name in conditional.state_dict() if name not in plain.state_dict()}
    assert {name.removeprefix("unet.") for name in surplus} == {"class_embedding.weight"}
    if kind is SpikingUNet2DModel:  # the seed gives the same weights, classes or not
        assert all(torch.equal(value, conditional.state_dict()[name]) for name, value in plain.state_dict().items())
    conditional.load_state_dict({**conditional.state_dict(), **plain.state_dict()})
    assert torch.equal(conditional(X, T, LABELS).sample, plain(X, T).sample)


@pytest.mark.parametrize("kind", [SpikingUNet2DModel, ANNUNet2DModel])
@torch.no_grad()
def test_a_class_is_added_to_the_time_embedding(kind):
    """So the network of class c is the one without classes whose last bias of the time network has c's row added."""
    plain, conditional = make(kind).double(), make(kind, num_classes=3).double()
    spiking = kind is SpikingUNet2DModel
    conditional.load_state_dict({**conditional.state_dict(), **plain.state_dict()})
    embedding = conditional.class_embedding if spiking else conditional.unet.class_embedding
    embedding.weight.normal_()
    bias = plain.time_embedding.linear2.bias if spiking else plain.unet.time_embedding.linear_2.bias
    before = bias.clone()
    answers = conditional(X.double(), T, LABELS).sample
    for i, label in enumerate(LABELS):
        bias.copy_(before + embedding.weight[label])
        torch.testing.assert_close(answers[i : i + 1], plain(X[i : i + 1].double(), T[i : i + 1]).sample)
    assert torch.equal(conditional(X.double(), T).sample, conditional(X.double(), T, torch.full((4,), 3)).sample)


@torch.no_grad()
def test_folded_and_compiled_networks_take_classes():
    model = make(SpikingUNet2DModel, num_classes=3).double()
    model.class_embedding.weight.normal_()
    expected = model(X.double(), T, LABELS).sample
    torch.testing.assert_close(compile_model(model)(X.double(), T, LABELS).sample, expected)
    folded = fold_time(model)
    torch.testing.assert_close(folded(X.double(), T, LABELS).sample, expected)
    torch.testing.assert_close(folded(X.double(), T).sample, model(X.double(), T).sample)
    assert folded.middle[0].time_projection.weight.shape == (1000 * 4, 16)


def test_labels_that_do_not_fit():
    model = make(SpikingUNet2DModel, num_classes=3)
    with pytest.raises(UserError, match=r"4 samples need class_labels \[4\], got \[1\]"):
        model(X, T, torch.tensor([1]))
    with pytest.raises(UserError, match="num_classes must be a whole number of at least 1"):
        make(SpikingUNet2DModel, num_classes=0)


@torch.no_grad()
@pytest.mark.parametrize("form", ["eager", "exact", "early exit"])
def test_steps_and_classes_that_the_network_does_not_have(form):
    model = make(SpikingUNet2DModel, num_classes=3).double()
    network = {"eager": model, "exact": compile_model(model), "early exit": EarlyExit(model, 0.1)}[form]
    x = X[:2].double()
    for t in (-1, 1000, torch.tensor([0, 1000])):
        with pytest.raises(UserError, match="diffusion steps must be from 0 to 999"):
            network(x, t)
    for labels in ([0, -1], [4, 0]):
        with pytest.raises(UserError, match="class_labels must be from 0 to 3"):
            network(x, 5, torch.tensor(labels))
    assert torch.equal(network(x, torch.tensor(5.0)).sample, network(x, 5).sample)
