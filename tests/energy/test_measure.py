"""From a pipeline to its ledger: real samples, given images, batches, solvers, the ANN."""

import operator

import pytest
import torch

from sddpm.diffusion.solvers import make_scheduler
from sddpm.energy.activity import recording
from sddpm.energy.cost import load_cost_model
from sddpm.energy.ledger import firing_rate
from sddpm.energy.measure import deployed, measure_images, measure_network, measure_sampling
from sddpm.energy.operations import counting
from sddpm.energy.twin import ann_twin, twin_ledger
from sddpm.errors import UserError
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.pipelines.threshold_guidance import StagedThresholds

COST = load_cost_model("45nm")


def test_a_samples_energy_is_that_of_its_evaluations(pipeline):
    ledger = measure_sampling(pipeline, range(3), num_inference_steps=4)
    assert [evaluation.t for evaluation in ledger.evaluations] == [99, 74, 49, 24]
    assert ledger.images == 3 and ledger.T == 3 and ledger.snn_steps == 3 and ledger.spiking
    assert ledger.per_sample(COST).total == pytest.approx(4 * ledger.per_evaluation(COST).total)

    # The same by hand: the same samples, counted one evaluation after the other.
    operations = []
    with counting(pipeline.unet) as counter:
        pipeline(seeds=range(3), num_inference_steps=4, engine="eager", output_type="pt", progress=False,
                 callback=lambda _step: operations.append(counter.take()))  # fmt: skip
    by_hand = sum(4.6 * layer.mac + 0.9 * layer.ac for layers in operations for layer in layers)
    assert ledger.per_sample(COST).total == pytest.approx(by_hand / 3)
    totals = ledger.totals()
    assert totals["ac"] == pytest.approx(sum(layer.ac for layers in operations for layer in layers) / 12)


def test_counting_does_not_change_the_samples(pipeline):
    options = {"seeds": range(2), "num_inference_steps": 3, "output_type": "pt", "progress": False, "engine": "eager"}
    before = pipeline(**options).images
    seen = []
    with recording(pipeline.unet):
        measure_sampling(pipeline, range(2), num_inference_steps=3)
        seen.append(pipeline(**options).images)
    assert torch.equal(seen[0], before)


def test_batches_add_up(pipeline):
    """In float64, where a sample does not depend on its batch."""
    pipeline.unet.double()
    whole = measure_sampling(pipeline, range(5), num_inference_steps=3, batch_size=5)
    parts = measure_sampling(pipeline, range(5), num_inference_steps=3, batch_size=2)
    assert [e.layers for e in parts.evaluations] == [e.layers for e in whole.evaluations]
    assert parts.images == 5


@pytest.mark.parametrize(("solver", "evaluations"), [("ddpm", 5), ("dpm++", 5), ("unipc", 5), ("pndm", 6)])
def test_solvers(pipeline, solver, evaluations):
    """PNDM evaluates once more than it has steps."""
    ledger = measure_sampling(pipeline, [0], solver=solver, num_inference_steps=5)
    assert len(ledger.evaluations) == evaluations and solver in ledger.solver


def test_given_images(pipeline):
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ledger = measure_images(pipeline, images, num_inference_steps=4, batch_size=2)
    assert [e.t for e in ledger.evaluations] == [99, 74, 49, 24] and ledger.images == 3
    assert "3 given images" in ledger.inputs

    # At the cleanest step what goes in is the image and a little noise, whose first convolution is counted once.
    again = measure_images(pipeline, images[:1], num_inference_steps=4)
    first = next(layer for layer in again.evaluations[-1].layers if layer.name == "encoder.conv1")
    assert first.images == (1,)


def test_each_given_image_has_the_noise_of_its_number(pipeline):
    """In a batch of its own too: x_t = sqrt(a) x_0 + sqrt(1 - a) noise of seed i."""
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen = []
    pipeline.unet.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    measure_images(pipeline, images, num_inference_steps=2, batch_size=2)
    noise = torch.stack([torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    found = [torch.cat(parts) for parts in zip(seen[:2], seen[2:], strict=True)]  # of both batches, by step
    for x_t, t in zip(found, (99, 49), strict=True):
        a = pipeline.scheduler.alphas_cumprod[t]
        torch.testing.assert_close(x_t, a.sqrt() * (images / 127.5 - 1) + (1 - a).sqrt() * noise)


def test_thresholds_for_given_images(pipeline):
    """All the time, or early alone: then the late evaluations are those of the trained thresholds."""
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    trained, high, early = (
        [firing_rate(e.layers) for e in measure_images(pipeline, images, num_inference_steps=4, **options).evaluations]
        for options in ({}, {"v_threshold": 3.0}, {"v_threshold": StagedThresholds(3.0, 1.0, 50)})
    )
    assert all(map(operator.lt, high, trained))
    assert early == high[:2] + trained[2:]


def test_given_images_are_the_same_current_at_every_step(make_model):
    """A network of synaptic currents computes its first convolution for every current, as in sampling."""
    unet = make_model(pure=True, synaptic_currents=True)
    pipeline = SpikingDiffusionPipeline(unet, make_scheduler("ddim", num_train_timesteps=100))
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    given = measure_images(pipeline, images, num_inference_steps=2)
    sampled = measure_sampling(pipeline, range(2), num_inference_steps=2)
    once, drawn = (
        next(layer for layer in ledger.evaluations[0].layers if layer.name == "encoder.conv1")
        for ledger in (given, sampled)
    )
    assert once.images == drawn.images == (2, 2, 2) and once.mac == drawn.mac


def test_the_twin_of_a_network_with_attention_has_attention(make_model):
    unet = make_model(attention_resolutions=(4,))
    twin, plain = ann_twin(unet.config), ann_twin(make_model().config)
    assert list(twin.config.attention_resolutions) == [4] and list(plain.config.attention_resolutions) == []
    levels = [hasattr(block, "attentions") for block in twin.unet.down_blocks]
    assert levels == [False, True] and twin.unet.mid_block.attentions[0] is None
    old = {key: value for key, value in unet.config.items() if key != "attention_resolutions"}
    assert list(ann_twin(old).config.attention_resolutions) == []
    pipeline = SpikingDiffusionPipeline(unet, make_scheduler("ddim", num_train_timesteps=100))
    ledger = twin_ledger(pipeline)
    assert "(products of activations)" in {layer.name for layer in ledger.layers}
    assert ledger.parameters == sum(p.numel() for p in twin.parameters())


def test_early_exit_saves(pipeline):
    whole = measure_sampling(pipeline, range(4), num_inference_steps=5)
    early = measure_sampling(pipeline, range(4), num_inference_steps=5, exit_tolerance=1e6)
    assert 2 <= early.snn_steps < 3 == whole.snn_steps
    assert early.per_sample(COST).total < whole.per_sample(COST).total
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    assert measure_images(pipeline, images, num_inference_steps=2, exit_tolerance=1e6).snn_steps < 3


def test_thresholds_change_what_is_counted(pipeline):
    quiet = measure_sampling(pipeline, range(2), num_inference_steps=3, v_threshold=3.0)
    loud = measure_sampling(pipeline, range(2), num_inference_steps=3)
    assert firing_rate(quiet.layers) < firing_rate(loud.layers)


def test_a_pure_network_is_deployed_with_a_table(make_model):
    scheduler = make_scheduler("ddim", num_train_timesteps=100)
    pure = SpikingDiffusionPipeline(make_model(pure=True), scheduler)
    ledger = measure_sampling(deployed(pure), range(2), num_inference_steps=3)
    assert [layer.name for layer in ledger.layers if layer.mac] == ["encoder.conv1"]
    as_layers = measure_sampling(deployed(pure, tabulate_time=False), range(2), num_inference_steps=3)
    assert as_layers.totals()["mac"] > ledger.totals()["mac"]
    assert as_layers.totals()["ac"] == ledger.totals()["ac"]

    plain = SpikingDiffusionPipeline(make_model(), scheduler)
    assert deployed(plain) is plain
    assert not any(
        "time" in layer.name for layer in measure_sampling(deployed(plain, True), [0], num_inference_steps=1).layers
    )


def test_an_ann_is_an_ann(make_model):
    twin = ann_twin(make_model().config)
    pipeline = SpikingDiffusionPipeline(twin, make_scheduler("ddim", num_train_timesteps=100))
    ledger = measure_sampling(deployed(pipeline), range(2), num_inference_steps=3)
    assert not ledger.spiking and ledger.T == 1 and ledger.totals()["ac"] == 0
    once = measure_network(twin, torch.randn(1, 1, 8, 8), 50, "twin")
    # An ANN's operations do not depend on the data.
    assert once.per_evaluation(COST).total == pytest.approx(ledger.per_evaluation(COST).total, rel=1e-12)
    with pytest.raises(UserError, match="cannot become a table"):
        deployed(pipeline, tabulate_time=True)
    with pytest.raises(UserError, match="needs a spiking U-Net"):
        measure_sampling(pipeline, [0], num_inference_steps=1, exit_tolerance=0.1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"expected images \[N, 1, H, W\] of uint8"),
        (torch.zeros(2, 1, 8, 8), "of uint8, got"),
        (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), "expected images"),
        (torch.zeros(2, 1, 16, 16, dtype=torch.uint8), "trained on images of 8 x 8, not 16 x 16"),
    ],
)
def test_images_that_cannot_be(pipeline, images, message):
    with pytest.raises(UserError, match=message):
        measure_images(pipeline, images, num_inference_steps=1)


def test_a_model_that_answers_nan(pipeline):
    with torch.no_grad():
        pipeline.unet.readout.conv.bias.fill_(float("nan"))
    with pytest.raises(UserError, match="NaN or infinity"):
        measure_sampling(pipeline, range(2), num_inference_steps=2)
