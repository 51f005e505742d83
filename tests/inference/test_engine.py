"""What a pipeline samples with: the compiled form by default, the model itself where something speaks against it."""

import logging
import re

import pytest
import torch
from diffusers import UNet2DModel

from sddpm.diffusion.solvers import make_scheduler
from sddpm.errors import UserError
from sddpm.inference import CompiledUNet, compiled
from sddpm.pipelines import SpikingDiffusionPipeline, denoise
from sddpm.pipelines.denoise import predict

STEPS = 6
QUICK = {"seeds": [4, 2], "num_inference_steps": STEPS, "output_type": "pt", "progress": False}


@pytest.fixture
def pipe(make_model):
    return SpikingDiffusionPipeline(make_model().float(), make_scheduler("ddim"))


@pytest.fixture
def asked(monkeypatch):
    """The number of calls of compiled networks, and how often one was folded."""
    counts = {"calls": 0, "folds": 0}
    forward, fold = CompiledUNet.forward, compiled.FoldedUNet

    def counting_forward(self, *args, **kwargs):
        counts["calls"] += 1
        return forward(self, *args, **kwargs)

    def counting_fold(*args):
        counts["folds"] += 1
        return fold(*args)

    monkeypatch.setattr(CompiledUNet, "forward", counting_forward)
    monkeypatch.setattr(compiled, "FoldedUNet", counting_fold)
    return counts


def test_compiled_once_and_used_by_default(pipe, asked):
    exact = pipe(**QUICK).images
    assert asked == {"calls": STEPS, "folds": 1}
    assert torch.equal(pipe(**QUICK, engine="exact").images, exact)
    assert asked == {"calls": 2 * STEPS, "folds": 1}
    pipe(**QUICK, engine="eager")
    assert asked["calls"] == 2 * STEPS
    pipe(**QUICK, engine="fast")
    assert asked == {"calls": 3 * STEPS, "folds": 2}


def test_the_numbers_of_images_and_steps_do_not_decide(pipe, asked):
    pipe(**{**QUICK, "num_inference_steps": 1})
    assert asked["calls"] == 1
    images = pipe(**QUICK).images
    assert torch.equal(pipe(**{**QUICK, "seeds": [2]}).images[0], images[1])


def test_answers_are_the_eager_ones(pipe):
    """One evaluation; over several a flipped spike may lead elsewhere."""
    pipe.unet.double()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    model = pipe._engines.choose(pipe.unet, "exact")
    torch.testing.assert_close(predict(model, x, 5), predict(pipe.unet, x, 5), rtol=0, atol=1e-10)
    torch.testing.assert_close(predict(model, x, 5, 0.8), predict(pipe.unet, x, 5, 0.8), rtol=0, atol=1e-10)
    images = {engine: pipe(**QUICK, engine=engine, v_threshold=0.9).images for engine in ("exact", "eager")}
    torch.testing.assert_close(images["exact"], images["eager"], rtol=0, atol=1e-9)


def test_another_model_or_other_weights_are_noticed(pipe, make_model):
    first = pipe(**QUICK).images
    with torch.no_grad():
        pipe.unet.middle[0].conv1.weight.mul_(2)
    changed = pipe(**QUICK).images
    assert not torch.equal(changed, first)
    pipe.unet = make_model().float()
    assert torch.equal(pipe(**QUICK).images, first)


def hook(pipe):
    pipe.unet.middle[0].neuron1.register_forward_hook(lambda *_: None)
    return r"middle\.0\.neuron1 has a forward hook"


def replaced_forward(pipe):
    pipe.unet.forward = pipe.unet.forward  # as offloading to another device does
    return "the model has a forward hook"


def parametrized(pipe):
    torch.nn.utils.parametrizations.weight_norm(pipe.unet.middle[0].conv1)
    return r"middle\.0\.conv1 is a Parametrized"


@pytest.mark.parametrize("change", [hook, replaced_forward, parametrized])
def test_falls_back_with_one_line(pipe, asked, caplog, change):
    reason = change(pipe)
    with caplog.at_level(logging.WARNING, logger="sddpm"):
        for _ in range(2):
            pipe(**QUICK)
    assert asked["calls"] == 0
    (record,) = [record for record in caplog.records if record.name.startswith("sddpm.inference")]
    assert record.getMessage().startswith("sampling without compiling the model: ")
    assert re.search(reason, record.getMessage())
    with pytest.raises(UserError, match=reason):
        pipe.stream([0], num_inference_steps=STEPS, engine="exact")


def test_hooks_are_called_in_a_stream_that_has_begun(pipe):
    seen = []
    batches = pipe.stream([0, 1], batch_size=1, num_inference_steps=STEPS, progress=False)
    next(batches)
    pipe.unet.neurons()["encoder.neuron"].register_forward_hook(lambda *_: seen.append(1))
    next(batches)
    assert len(seen) == STEPS


def test_other_precisions_and_models_stay_eager(pipe, asked, caplog):
    for dtype in (torch.float64, torch.bfloat16):
        pipe.unet.to(dtype)
        pipe(**QUICK)
    blocks = {"block_out_channels": (32,), "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    ann = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, **blocks)
    pipe = SpikingDiffusionPipeline(ann, make_scheduler("ddim"))
    pipe(**QUICK)
    assert asked["calls"] == 0
    assert not [record for record in caplog.records if record.name.startswith("sddpm")]
    with pytest.raises(UserError, match=r"'exact'.*UNet2DModel is not a SpikingUNet2DModel"):
        pipe(**QUICK, engine="exact")


def test_unknown_engine(pipe):
    with pytest.raises(UserError, match="unknown engine 'quick': choose one of auto, eager, exact, fast"):
        pipe(**QUICK, engine="quick")


def test_a_compiled_network_is_a_pipeline_s_model(pipe):
    """For those who compile by themselves."""
    own = SpikingDiffusionPipeline(compiled.compile_model(pipe.unet), pipe.scheduler)
    assert torch.equal(own(**QUICK).images, pipe(**QUICK).images)
    assert torch.equal(own(**QUICK, v_threshold=0.8).images, pipe(**QUICK, v_threshold=0.8).images)
    steps = denoise(own.unet, own.scheduler, torch.zeros(1, 1, 8, 8), [torch.Generator()], num_inference_steps=2)
    assert len(list(steps)) == 2
