"""One picture's way: what is kept of it, and a layer looked at again."""

import pytest
import torch

from sddpm.app.settings import Settings
from sddpm.app.traces import look, trace
from sddpm.data import to_uint8
from sddpm.errors import UserError
from sddpm.models import ANNUNet2DModel
from sddpm.models.thresholds import spiking_neurons
from sddpm.pipelines import SpikingDiffusionPipeline
from tests.helpers.small_pipeline import SMALL, pipeline_of

GUIDED = {"label": "1", "guidance_scale": 2.0, "thresholds": "0.8x", "steps": 3}


@pytest.mark.parametrize("said", [{"steps": 4}, GUIDED])
def test_the_way_is_that_of_the_picture(said):
    pipeline = pipeline_of(num_classes=2 if "label" in said else None)
    seen, expected = [], []
    settings = Settings("tiny", seeds="5", **said)
    traced = trace(pipeline, settings, seen.append)
    wanted = settings.wanted(pipeline)
    pipeline(
        seeds=[5], class_labels=wanted.labels, options=settings.options, engine="eager", progress=False,
        callback=expected.append,
    )  # fmt: skip
    assert traced.timesteps == [step.t for step in expected] and len(seen) == traced.total == len(expected)
    assert all(torch.equal(a, b.x_t) for a, b in zip(traced.x_t, expected, strict=True))
    assert torch.equal(traced.picture, to_uint8(expected[-1].x_prev[0]))
    assert not any(neuron._forward_hooks for neuron in spiking_neurons(pipeline.unet).values())


@pytest.mark.parametrize("said", [{"steps": 4}, GUIDED])
def test_a_layer_fires_as_it_did(said):
    pipeline = pipeline_of(num_classes=2 if "label" in said else None)
    traced = trace(pipeline, Settings("tiny", seeds="5", **said))
    for index in range(traced.total):
        for number, layer in enumerate(traced.layers):
            view = look(pipeline, traced, index, layer)
            assert float(view.spikes.float().mean()) == pytest.approx(traced.rates[index][number], abs=1e-6)
            assert torch.equal(view.membranes >= 1, view.spikes)  # IF neurons fire from the threshold on
            assert view.raster.shape == (min(48, view.spikes[0].numel()), 2)
    rates = view.spikes.float().mean((0, 2, 3))
    assert rates[view.busiest(2)].sum() == pytest.approx(float(rates.topk(2).values.sum()))
    assert {neuron.v_threshold for neuron in spiking_neurons(pipeline.unet).values()} == {1.0}


def test_refusals():
    pipeline = pipeline_of()
    with pytest.raises(UserError, match="give one seed, not '1,2'"):
        trace(pipeline, Settings("tiny", seeds="1,2"))
    with pytest.raises(UserError, match="at most 250"):
        trace(pipeline, Settings("tiny", seeds="1", steps=251))
    with pytest.raises(UserError, match="synaptic currents"):
        trace(pipeline_of(pure=True, synaptic_currents=True), Settings("tiny", seeds="1"))
    network = ANNUNet2DModel(**{**SMALL, "num_res_blocks": 1})
    with pytest.raises(UserError, match="no spiking neurons"):
        trace(SpikingDiffusionPipeline(network, pipeline.scheduler), Settings("ann", seeds="1"))
    traced = trace(pipeline, Settings("tiny", seeds="1", steps=2))
    with pytest.raises(UserError, match="has changed since the trace"):
        look(pipeline_of(channel_mult=(1,)), traced, 0, traced.layers[0])
