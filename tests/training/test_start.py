"""--init-from a network that lacks what starts without effect: classes, attention and the input skip."""

import pytest
import torch

from sddpm.diffusion.solvers import make_scheduler
from sddpm.errors import UserError
from sddpm.models import ANNUNet2DModel, SpikingUNet2DModel
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.training.start import load_weights

SMALL = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "base_channels": 8, "channel_mult": (1, 2)}


def network(seed, kind=SpikingUNet2DModel, **options):
    torch.manual_seed(seed)
    model = kind(**SMALL, num_res_blocks=1, **options)
    for value in model.state_dict().values():  # as if trained: nothing starts at 0 or 1
        if value.is_floating_point() and seed == 1:
            value.add_(0.05 * torch.rand(value.shape))
    return model.eval()


def saved(model, folder):
    SpikingDiffusionPipeline(model, make_scheduler("ddpm")).save_pretrained(folder)
    return folder


@torch.no_grad()
@pytest.mark.parametrize("added", [{"num_classes": 3}, {"attention_resolutions": (4, 8)}, {"input_skip": True}])
def test_it_answers_as_its_source_and_keeps_what_it_has_more(tmp_path, added):
    source, model = network(1), network(2, **added)
    assert load_weights(model, saved(source, tmp_path)) == []
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([10, 600])
    labels = [{}] if "num_classes" not in added else [{}, {"class_labels": torch.tensor([0, 2])}]
    assert all(torch.equal(model(x, t, **given).sample, source(x, t).sample) for given in labels)


@torch.no_grad()
def test_what_the_source_has_is_taken_over(tmp_path):
    options = {"num_classes": 3, "attention_resolutions": (4,)}
    source, model = network(1, **options), network(2, **options)
    assert load_weights(model, saved(source, tmp_path)) == []
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in source.state_dict().items())
    with pytest.raises(
        UserError, match=r"^\S+ does not fit the config's model section: it has in addition .*attention"
    ):
        load_weights(network(2, num_classes=3), tmp_path)
    with pytest.raises(UserError, match=r"another shape class_embedding.weight \[4, 32\] for \[6, 32\]$"):
        load_weights(network(2, num_classes=5, attention_resolutions=(4,)), tmp_path)


@torch.no_grad()
def test_classes_of_the_twin(tmp_path):
    source, model = network(1, ANNUNet2DModel), network(2, ANNUNet2DModel, num_classes=3)
    assert load_weights(model, saved(source, tmp_path)) == []
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(model(x, 500, torch.tensor([0, 2])).sample, source(x, 500).sample)
