"""`sddpm convert` and `sddpm info` from the shell, on the reference's own checkpoints."""

import subprocess
import sys

import pytest
import torch

from sddpm import load_pipeline


def sddpm(*arguments):
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "sddpm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_there_and_back(vectors_dir, tmp_path):
    checkpoint = vectors_dir / "sdm_tsm_rgb16_T4.ckpt.pt"
    done = sddpm("convert", checkpoint, tmp_path / "model")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[0]
    for fact in ("base_channels=16", "channel_mult=[1, 2, 2]", "num_res_blocks=1", "temporal_modulation=True", "T=4",
                 "sample_size=16", "assumed neuron=if, v_threshold=1.0"):  # fmt: skip
        assert fact in said

    case = torch.load(vectors_dir / "sdm_tsm_rgb16_T4.case.pt", weights_only=True)
    unet = load_pipeline(tmp_path / "model").unet.double()
    with torch.no_grad():
        out = unet(case["x"].double(), case["t"]).sample
    assert torch.allclose(out, case["eval_f64"], rtol=1e-9, atol=1e-9)

    described = sddpm("info", tmp_path / "model", "--layers")
    assert described.returncode == 0, described.stderr
    for fact in ("T = 4", "IF", "TSM          yes", "1 in all layers", "16, 32, 32 channels", "encoder.conv1"):
        assert fact in described.stdout

    assert sddpm("convert", tmp_path / "model", tmp_path / "back.pt").returncode == 0
    original = torch.load(checkpoint, weights_only=True)["net_model"]
    back = torch.load(tmp_path / "back.pt", weights_only=True)["net_model"]
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in original.items()}
    assert all(torch.equal(back[k], original[k]) for k in original)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.pt", "out"], "nothing at absent.pt"),
        (["text.pt", "out"], "text.pt is not a torch checkpoint"),
        (["empty", "out.pt"], "empty is not a model"),
        (["{checkpoint}", "taken"], "taken already exists"),
        (["{checkpoint}", "out.pt"], "a converted model is a folder"),
        (["{checkpoint}", "out", "--T", "0"], "T must be a whole number of at least 1, got 0"),
        (["{checkpoint}", "out", "--neuron", "hodgkin"], "unknown neuron 'hodgkin'"),
        (["{checkpoint}", "out", "--image-size", "32"], "shows sample_size=16"),
        (["{checkpoint}", "out", "--v-threshold", "-1"], "v_threshold must be a positive number"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(vectors_dir, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    checkpoint = vectors_dir / "sddpm_rgb16_T4.ckpt.pt"
    before = sorted(tmp_path.rglob("*"))
    done = sddpm("convert", *[argument.format(checkpoint=checkpoint) for argument in arguments])
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and message in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_force_replaces(vectors_dir, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text('{"_class_name": "SpikingDiffusionPipeline"}')
    (tmp_path / "model" / "samples.png").write_text("old")
    done = sddpm("convert", vectors_dir / "sddpm_rgb16_T4.ckpt.pt", tmp_path / "model", "--force")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "model" / "samples.png").exists() and (tmp_path / "model" / "unet").exists()


def test_force_does_not_replace_what_is_no_model(vectors_dir, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "note.txt").write_text("mine")
    done = sddpm("convert", vectors_dir / "sddpm_rgb16_T4.ckpt.pt", tmp_path / "model", "--force")
    assert done.returncode == 2 and "was not written by sddpm and will not be replaced" in done.stderr
    assert (tmp_path / "model" / "note.txt").read_text() == "mine"
