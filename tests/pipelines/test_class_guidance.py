"""Classes and classifier-free guidance: Gaussians whose guided score is known, and what a class may be called."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from sddpm.diffusion.solvers import make_scheduler
from sddpm.errors import UserError
from sddpm.models import ANNUNet2DModel, SpikingUNet2DModel
from sddpm.pipelines import SpikingDiffusionPipeline, load_pipeline
from sddpm.pipelines.class_guidance import class_index, resolve_labels

MEANS = (-0.2, 0.3, 0.05)  # of two classes, and without a class
STD = 0.1
QUICK = {"num_inference_steps": 5, "output_type": "pt", "progress": False}
SMALL = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "base_channels": 8, "channel_mult": (1, 2)}


class GaussianModel(ModelMixin, ConfigMixin):
    """The exact noise prediction for pixels N(MEANS[class], STD^2)."""

    @register_to_config
    def __init__(self, sample_size: int = 8, in_channels: int = 1, num_classes: int = 2):
        super().__init__()
        self.means = nn.Parameter(torch.tensor(MEANS))
        self.alphas_cumprod = make_scheduler("ddim").alphas_cumprod.float()
        self.batches = []

    def forward(self, sample, timestep, class_labels):
        self.batches.append(len(sample))
        a = self.alphas_cumprod[torch.as_tensor(timestep)].view(-1, 1, 1, 1)
        mean = self.means[class_labels].view(-1, 1, 1, 1)
        return SimpleNamespace(sample=(1 - a).sqrt() * (sample - a.sqrt() * mean) / (a * STD**2 + 1 - a))


@pytest.fixture
def gaussian():
    return SpikingDiffusionPipeline(GaussianModel(), make_scheduler("ddim"), class_names=["low", "Ankle boot"])


@pytest.fixture
def conditional():
    """A spiking network of three classes, which answers differently for each."""
    torch.manual_seed(0)
    model = SpikingUNet2DModel(**SMALL, num_res_blocks=1, T=2, num_classes=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.class_embedding.weight.normal_()
    return SpikingDiffusionPipeline(model, make_scheduler("ddim", beta_schedule="cosine"))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_guided_gaussians_have_the_mean_that_theory_gives(gaussian, scale):
    """Of Gaussians of one variance the guided score, s_u + s (s_c - s_u), is that of mean m_u + s (m_c - m_u)."""
    images = gaussian(
        seeds=range(64),
        class_labels=[0, 1] * 32,
        guidance_scale=scale,
        solver="dpm++",
        **{**QUICK, "num_inference_steps": 200},
    ).images
    pixels = (2 * images - 1).view(32, 2, -1).transpose(0, 1).flatten(1)
    for label in (0, 1):
        expected = MEANS[2] + scale * (MEANS[label] - MEANS[2])
        error = STD / pixels.shape[1] ** 0.5
        assert abs(pixels[label].mean() - expected) < 4 * error
        assert pixels[label].std() == pytest.approx(STD, rel=0.05)


def test_scale_1_asks_once_and_others_in_one_batch_of_twice_the_size(gaussian):
    gaussian(seeds=range(3), class_labels=1, **QUICK)
    gaussian(seeds=range(3), class_labels=1, guidance_scale=1.5, **QUICK)
    assert gaussian.unet.batches == [3] * 5 + [6] * 5


@pytest.mark.parametrize("engine", ["eager", "exact"])
def test_scale_1_is_the_conditional_model_bit_for_bit(conditional, engine):
    """That is: a pipeline of an unconditional model into which the class has been built."""
    model, label = conditional.unet, 2
    plain = SpikingUNet2DModel(**SMALL, num_res_blocks=1, T=2)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("class_embedding")}
    state["time_embedding.linear2.bias"] = state["time_embedding.linear2.bias"] + model.class_embedding.weight[label]
    plain.load_state_dict(state)
    built_in = SpikingDiffusionPipeline(plain, conditional.scheduler)
    options = {**QUICK, "engine": engine}
    images = conditional(seeds=range(3), class_labels=label, guidance_scale=1.0, **options).images
    if engine == "exact":  # which folds in float64; float32 rounds the sum of the two biases differently
        assert torch.equal(images, built_in(seeds=range(3), **options).images)
    else:
        torch.testing.assert_close(images, built_in(seeds=range(3), **options).images, rtol=0, atol=0.05)
    assert torch.equal(images, conditional(seeds=range(3), class_labels=[label] * 3, **options).images)
    assert not torch.equal(images, conditional(seeds=range(3), class_labels=0, **options).images)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_seed_and_a_class_mean_the_same_in_any_batch(conditional, scale):
    options = {**QUICK, "engine": "exact", "guidance_scale": scale}
    together = conditional(seeds=[4, 4, 7, 7], class_labels=[0, 1, 1, "none"], **options).images
    alone = [
        conditional(seeds=[seed], class_labels=label, **options).images[0]
        for seed, label in [(4, 0), (4, 1), (7, 1), (7, "none")]
    ]
    assert torch.equal(together, torch.stack(alone))
    shuffled = conditional(seeds=[7, 4, 7, 4], class_labels=[1, 1, 3, 0], batch_size=3, **options).images
    assert torch.equal(together, shuffled[[3, 1, 0, 2]])


def test_no_class_is_what_the_model_answers_without(conditional):
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([5, 900])
    unet = conditional.unet.eval()
    with torch.no_grad():
        assert torch.equal(unet(x, t).sample, unet(x, t, torch.tensor([3, 3])).sample)
    assert torch.equal(conditional(2, **QUICK).images, conditional(2, class_labels="none", **QUICK).images)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_painted_gaussians_have_the_mean_that_theory_gives(gaussian, scale):
    """Its pixels are independent: what is painted is a sample of the class, whatever is known."""
    known, mask = torch.full((64, 1, 8, 8), 0.9), torch.arange(8).expand(8, 8) >= 4
    options = {**QUICK, "num_inference_steps": 100, "resamplings": 2, "jump_length": 10}
    images = gaussian.inpaint(known, mask, class_labels=[0, 1] * 32, guidance_scale=scale, **options).images
    assert torch.equal(images[..., :4], known[..., :4])
    pixels = (2 * images[..., 4:] - 1).view(32, 2, -1).transpose(0, 1).flatten(1)
    for label in (0, 1):
        expected = MEANS[2] + scale * (MEANS[label] - MEANS[2])
        assert abs(pixels[label].mean() - expected) < 4 * STD / pixels.shape[1] ** 0.5
        assert pixels[label].std() == pytest.approx(STD, rel=0.2)  # 100 steps of DDIM draw a little narrow


def test_painting_asks_for_no_class_unless_told(conditional):
    known, mask = torch.zeros(2, 1, 8, 8), torch.arange(8).expand(8, 8) >= 4
    options = {**QUICK, "resamplings": 1, "engine": "exact"}
    plain = conditional.inpaint(known, mask, **options).images
    assert torch.equal(plain, conditional.inpaint(known, mask, class_labels="none", **options).images)
    both = conditional.inpaint(known, mask, class_labels=["none", 1], **options).images
    assert torch.equal(plain[0], both[0]) and not torch.equal(plain[1], both[1])
    with pytest.raises(UserError, match="2 seeds, but 3 class labels"):
        conditional.inpaint(known, mask, class_labels=[0, 1, 2], **options)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_interpolation_of_a_class_begins_and_ends_with_samples_of_it(conditional, scale):
    options = {**QUICK, "engine": "exact", "guidance_scale": scale}
    images = conditional.interpolate([4, 7, 5], frames=3, class_labels=[2, 0], **options).images
    ends = conditional(seeds=[4, 7, 7, 5], class_labels=[2, 2, 0, 0], **options).images
    assert torch.equal(images[[0, 2, 3, 5]], ends)
    drawn = conditional.interpolate([4, 7, 5], frames=3, class_labels="random", **options).images
    assert torch.equal(drawn[[0, 3]], conditional(seeds=[4, 7], class_labels="random", **options).images)
    with pytest.raises(UserError, match="2 pairs of seeds, but 3 class labels"):
        conditional.interpolate([4, 7, 5], class_labels=[0, 1, 2], **options)


def test_early_exit_takes_classes(conditional):
    options = {**QUICK, "class_labels": [0, 1, 2], "guidance_scale": 2.0}
    whole = conditional(seeds=range(3), engine="eager", **options).images
    left = conditional(seeds=range(3), exit_tolerance=0.0, **options).images
    torch.testing.assert_close(left, whole, rtol=0, atol=1e-3)


def test_random_classes_are_uniform_and_belong_to_their_seed():
    labels = resolve_labels("random", range(3000), 10)
    counts = Counter(labels)
    assert sum((n - 300) ** 2 / 300 for n in counts.values()) < 27.9  # chi-square, 9 degrees of freedom, p = 0.001
    assert labels[7:2000:3] == resolve_labels("random", range(7, 2000, 3), 10)
    assert resolve_labels("random", range(50), 10) != resolve_labels("random", range(50, 100), 10)


@pytest.mark.parametrize(
    ("label", "index"), [(0, 0), ("1", 1), ("ankle BOOT", 1), ("low", 0), ("none", 2), (2, 2), (torch.tensor(1), None)]
)
def test_a_class_has_a_number_and_perhaps_a_name(label, index):
    if index is None:  # a tensor is a list of classes, not one
        assert resolve_labels(torch.tensor([1, 0]), [5, 6], 2) == [1, 0]
    else:
        assert class_index(label, 2, ["low", "Ankle boot"]) == index


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"class_labels": 3}, "unknown class 3: choose 0 to 1"),
        ({"class_labels": -1}, "unknown class -1"),
        ({"class_labels": 1.5}, "unknown class 1.5"),
        ({"class_labels": "Ankle boots"}, "did you mean ankle boot"),
        ({"class_labels": "cat"}, "low, Ankle boot"),
        ({"class_labels": [0, 1]}, "3 seeds, but 2 class labels"),
        ({"guidance_scale": 2.0}, "a guidance scale needs class labels"),
        ({"class_labels": 1, "guidance_scale": -1.0}, "at least 0, not -1"),
        ({"class_labels": 1, "guidance_scale": float("nan")}, "at least 0, not nan"),
    ],
)
def test_what_cannot_be_asked_for(gaussian, options, words):
    with pytest.raises(UserError) as error:
        gaussian.stream([1, 2, 3], **options)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_model_without_classes_says_so(spiking):
    with pytest.raises(UserError, match="this model has no classes"):
        spiking(seeds=[1], class_labels=0, **QUICK)
    with pytest.raises(UserError, match="needs a model that was trained with classes"):
        spiking(seeds=[1], guidance_scale=2.0, **QUICK)
    for network in (spiking.unet, ANNUNet2DModel(**SMALL, num_res_blocks=1)):
        with pytest.raises(UserError, match="this model has no classes"):
            network(torch.zeros(1, 1, 8, 8), 0, torch.tensor([0]))


def test_names_are_kept_with_the_model(conditional, tmp_path):
    named = SpikingDiffusionPipeline(conditional.unet, conditional.scheduler, class_names=["a", "b/c", "D"])
    named.save_pretrained(tmp_path)
    loaded = load_pipeline(tmp_path)
    assert loaded.class_names == ["a", "b/c", "D"] and loaded.num_classes == 3
    same = (pipe(seeds=[1], class_labels=label, **QUICK).images for pipe, label in ((loaded, "d"), (conditional, 2)))
    assert torch.equal(*same)
    assert torch.equal(
        SpikingDiffusionPipeline.from_pretrained(tmp_path)(seeds=[1], class_labels="D", **QUICK).images,
        conditional(seeds=[1], class_labels=2, **QUICK).images,
    )
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace('"b/c"', "7"))
    with pytest.raises(UserError, match="class_names must be a list of names"):
        load_pipeline(tmp_path)


def test_classes_in_an_array(conditional):
    listed = conditional(seeds=[1, 2], class_labels=[2, 0], **QUICK).images
    for labels in (np.array([2, 0]), torch.tensor([2, 0])):
        assert torch.equal(conditional(seeds=[1, 2], class_labels=labels, **QUICK).images, listed)
    one = conditional(seeds=[1, 2], class_labels=np.array(2), **QUICK).images
    assert torch.equal(one, conditional(seeds=[1, 2], class_labels=2, **QUICK).images)
