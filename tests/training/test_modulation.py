"""TSM fine-tuning: starts as the model it comes from, and its scales have a learning rate of their own."""

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sddpm.conversion import from_reference
from sddpm.diffusion.solvers import make_scheduler
from sddpm.models import SpikingUNet2DModel
from sddpm.models.modulation import modulation_scales
from sddpm.pipelines import SpikingDiffusionPipeline, load_pipeline
from sddpm.training import load_config, train
from sddpm.training.checkpoint import checkpoint_path
from sddpm.training.start import load_weights


def modulated(config):
    torch.manual_seed(7)  # other weights than those it is to take over
    return SpikingUNet2DModel.from_config({**config, "temporal_modulation": True})


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True])
def test_outputs_before_the_first_step_are_those_of_the_reference_checkpoint(vectors_dir, tmp_path, training):
    """Exactly, by way of `convert`; in training mode too, where the first convolution is shared over time."""
    source = from_reference(vectors_dir / "sddpm_rgb16_T4.ckpt.pt").model
    SpikingDiffusionPipeline(source, make_scheduler("ddpm")).save_pretrained(tmp_path)
    model = modulated(source.config)
    assert load_weights(model, tmp_path) == []
    scales = modulation_scales(model)
    assert len(scales) == sum(1 for name in model.state_dict() if name.endswith(".p"))
    assert all(torch.equal(p, torch.ones(4)) for p in scales.values())
    case = torch.load(vectors_dir / "sddpm_rgb16_T4.case.pt", weights_only=True)
    x, t = case["x"].float(), case["t"]
    for each in (source, model):
        each.train(training)
    assert torch.equal(model(x, t).sample, source(x, t).sample)


def test_other_dynamics_are_told(vectors_dir, tmp_path):
    source = from_reference(vectors_dir / "sddpm_rgb16_T4.ckpt.pt").model
    SpikingDiffusionPipeline(source, make_scheduler("ddpm")).save_pretrained(tmp_path)
    model = modulated({**source.config, "T": 8, "v_threshold": 0.9})
    assert load_weights(model, tmp_path) == ["T = 8 (there 4)", "v_threshold = 0.9 (there 1.0)"]


@pytest.fixture(scope="module")
def source(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("source") / "run"
    train(tiny("train.steps=1"), folder, progress=False)
    return folder


def test_the_scales_have_their_own_rate_and_no_decay(source, tmp_path, tiny):
    """Adam's first step moves every number by its learning rate; decay would have moved the scales further."""
    settings = ("model.temporal_modulation=true", "train.steps=1", "train.warmup_steps=0", "train.lr_schedule=constant",
                "train.optimizer=adamw", "train.weight_decay=0.5", "train.lr=1e-4", "train.ema_decay=0")  # fmt: skip
    before = load_pipeline(source).unet.state_dict()
    for rate in ("null", "0.01"):
        run = tmp_path / rate
        train(tiny(*settings, f"train.modulation_lr={rate}"), run, init_from=source, progress=False)
        after = load_file(checkpoint_path(run, 1) / "model.safetensors")
        moved = torch.cat([(after[name] - 1).abs() for name in after if name.endswith(".p")])
        expected = 1e-4 if rate == "null" else 0.01
        assert moved.median().item() == pytest.approx(expected, rel=0.01)
        assert moved.max().item() < expected * 1.01
        bias = "encoder.conv2.bias"  # starts at 0 in the source's initial weights, and has moved one step since
        assert (after[bias] - before[bias]).abs().max().item() < 1.1e-4 + 0.5e-4 * before[bias].abs().max().item()
    with Image.open(tmp_path / "0.01" / "modulation.png") as picture:
        assert picture.width > 300
    assert not (source / "modulation.png").exists()


def test_resumed_has_the_same_bits(source, tmp_path, tiny):
    settings = ("model.temporal_modulation=true", "train.modulation_lr=0.01", "train.lr_schedule=constant")
    train(tiny(*settings, "train.steps=4"), tmp_path / "whole", init_from=source, progress=False)
    train(tiny(*settings, "train.steps=2"), tmp_path / "parts", init_from=source, progress=False)
    train(tiny(*settings, "train.steps=4"), tmp_path / "parts", resume=True, progress=False)
    whole, parts = (load_file(checkpoint_path(tmp_path / name, 4) / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_note_says_what_else_changed(source, tmp_path, tiny, capsys):
    train(tiny("model.temporal_modulation=true", "model.T=3", "train.steps=1"), tmp_path / "run", init_from=source)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert notes == [f"note: this network differs from that of {source}: T = 3 (there 2)"]


def test_one_line_names_shapes(source, tmp_path, tiny):
    from sddpm.errors import UserError

    with pytest.raises(
        UserError, match=r"another shape time_embedding.table \[1000, 8\] for \[1000, 16\], .* and \d+ more$"
    ):
        train(tiny("model.base_channels=16"), tmp_path / "run", init_from=source, progress=False)
    config = load_config("digits", ["model.temporal_modulation=true"])
    assert config.train.modulation_lr is None
