"""What stands in an ONNX file besides its network, sampling from it, and files that are refused."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from sddpm.errors import UserError
from sddpm.export.onnx_file import KEY, export_onnx, onnx_model, read_onnx
from sddpm.export.onnx_runner import load_onnx
from sddpm.pipelines import SamplingOptions
from sddpm.release.weights import halve
from tests.helpers.small_pipeline import pipeline_of


@pytest.mark.parametrize(
    ("solver", "config"),
    [
        ("unipc", {}),
        ("sde-dpm++", {"num_classes": 3, "pure": True}),
        ("ddim", {"dims": 1}),
        ("dpm++", {"pure": True, "synaptic_currents": True}),
    ],
)
def test_sampling_with_the_same_seeds_and_solver(solver, config, tmp_path):
    ours = pipeline_of(solver, scale=1.01, **config)
    export_onnx(ours, tmp_path / "model.onnx")
    theirs = load_onnx(tmp_path / "model.onnx")
    assert type(theirs.scheduler) is type(ours.scheduler) and theirs.solver == solver
    assert theirs.x0_scale == 1.01 and theirs.num_classes == ours.num_classes
    options = {"num_inference_steps": 4, "output_type": "pt", "progress": False}
    options |= {"class_labels": [0, 1, 2], "guidance_scale": 2.0} if "num_classes" in config else {}
    ours, theirs = (torch.as_tensor(pipe(seeds=[3, 1, 4], **options).images) for pipe in (ours, theirs))
    assert (ours - theirs).abs().median() < 1e-4  # a spike that flips by rounding may change some pixels


def test_metadata_say_what_a_solver_needs(tmp_path):
    pipe = pipeline_of(names=["a", "b"], num_classes=2)
    pipe.unet.set_v_threshold({"up*": 0.9})
    export_onnx(pipe, tmp_path / "model.onnx", rates=True)
    data = read_onnx(tmp_path / "model.onnx").metadata
    assert data["schedule"]["beta_schedule"] == "cosine" and data["schedule"]["num_train_timesteps"] == 1000
    assert data["prediction_type"] == "v_prediction" and data["clip_sample"] is True
    assert data["T"] == 2 and data["class_names"] == ["a", "b"] and data["range"] == [-1, 1]
    assert data["thresholds"]["up.0.blocks.0.neuron1"] == 0.9 and data["thresholds"]["encoder.neuron"] == 1
    assert data["firing_rates"] == list(pipe.unet.neurons())
    model = onnx.load(tmp_path / "model.onnx")
    assert data["opset"] == model.opset_import[0].version
    assert [value.name for value in model.graph.input] == ["x_t", "t", "class"]


def test_the_default_sampler_and_number_of_steps_are_kept(tmp_path):
    samplers = {"quick": {"solver": "dpm++", "timesteps": [999, 400, 20], "x0_scale": 1.03, "about": {"images": 8}},
                "long": {"solver": "ddpm", "num_inference_steps": 30}}  # fmt: skip
    ours = pipeline_of("unipc")
    ours.register_to_config(samplers=samplers, sampler="quick", num_inference_steps=7)
    export_onnx(ours, tmp_path / "model.onnx")
    theirs = load_onnx(tmp_path / "model.onnx")
    assert theirs.samplers == ours.samplers and theirs.default_sampler == "quick"
    assert theirs.num_inference_steps == 7 and theirs.solver == "unipc"
    own = replace(theirs.resolve_options(SamplingOptions()), engine="auto")
    assert own == replace(ours.resolve_options(SamplingOptions()), engine="auto")
    assert (own.solver, own.timesteps, own.x0_scale) == ("dpm++", (999, 400, 20), 1.03)


def test_files_without_samplers_are_read(file, tmp_path):
    """As sddpm 0.2 wrote them."""
    model = onnx.load(file)
    data = json.loads(model.metadata_props[0].value)
    for name in ("num_inference_steps", "samplers", "sampler"):
        assert data.pop(name) is None
    onnx.helper.set_model_props(model, {KEY: json.dumps(data)})
    onnx.save(model, tmp_path / "old.onnx")
    old = load_onnx(tmp_path / "old.onnx")
    assert old.samplers == {} and old.default_sampler is None and old.num_inference_steps == 50


def test_signals_keep_their_range(tmp_path):
    export_onnx(pipeline_of(dims=1, spread=[0.0, 5.0]), tmp_path / "model.onnx")
    assert load_onnx(tmp_path / "model.onnx").signal_range == (0.0, 5.0)


def test_thresholds_that_threshold_guidance_keeps_are_put_in():
    pipe = pipeline_of()
    pipe.register_to_config(threshold_guidance={"v_threshold": {"up*": "0.5x"}})
    data = json.loads({p.key: p.value for p in onnx_model(pipe).metadata_props}[KEY])
    assert data["thresholds"]["up.0.blocks.0.neuron1"] == 0.5
    assert set(n.v_threshold for n in pipe.unet.neurons().values()) == {1.0}
    data = json.loads({p.key: p.value for p in onnx_model(pipe, thresholds={}).metadata_props}[KEY])
    assert set(data["thresholds"].values()) == {1.0}
    pipe.register_to_config(threshold_guidance={"v_threshold": {"early": 1.0, "late": 0.9, "boundary": 500}})
    with pytest.raises(UserError, match="v_threshold"):
        onnx_model(pipe)


def test_released_weights_are_half_the_size_and_the_same():
    pipe = pipeline_of()
    pipe.unet.load_state_dict(halve(pipe.unet.state_dict()))
    exact = onnx_model(pipe)
    kept = {t.name: onnx.numpy_helper.to_array(t) for t in exact.graph.initializer}
    weight = kept["encoder.conv2.weight.float16"]
    assert weight.dtype == np.float16 and np.array_equal(weight, pipe.unet.encoder.conv2.weight.detach().numpy())
    assert kept["encoder.norm1.running_var"].dtype == np.float32


def test_other_weights_are_rounded_only_when_told_to():
    pipe = pipeline_of()
    assert not any(t.name.endswith(".float16") for t in onnx_model(pipe).graph.initializer)
    halves = [t for t in onnx_model(pipe, half=True).graph.initializer if t.name.endswith(".float16")]
    assert len(halves) > 20
    with torch.no_grad():
        pipe.unet.encoder.conv1.weight[0, 0] = 1e6
    with pytest.raises(UserError, match=r"encoder\.conv1\.weight has NaN or values out of the range of half precision"):
        onnx_model(pipe, half=True)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(pipeline_of(), path)
    return path


def test_damaged_files_are_refused(file, tmp_path):
    content = file.read_bytes()
    damaged = tmp_path / "damaged.onnx"
    flipped = bytearray(content)
    flipped[len(flipped) // 3] ^= 1  # among the weights
    for bad in (content[: len(content) // 2], b"", b"not ONNX at all", bytes(flipped)):
        damaged.write_bytes(bad)
        with pytest.raises(UserError, match=r"damaged\.onnx (is damaged|was not written)"):
            load_onnx(damaged)
    with pytest.raises(UserError, match="cannot read"):
        load_onnx(tmp_path / "none.onnx")


def test_files_of_other_software_are_refused(file, tmp_path):
    model = onnx.load(file)
    del model.metadata_props[:]
    model.producer_name = "pytorch"
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(UserError, match=r"not written by sddpm export \(by pytorch\)"):
        load_onnx(tmp_path / "other.onnx")


@pytest.mark.parametrize("change", [{"format": 2}, {"scheduler": ["os", "system"]}, {"config": None}])
def test_metadata_that_do_not_fit_are_refused(change, file, tmp_path):
    model = onnx.load(file)
    data = json.loads(model.metadata_props[0].value)
    onnx.helper.set_model_props(model, {KEY: json.dumps(data | change)})
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(UserError):
        load_onnx(tmp_path / "changed.onnx")


def test_from_the_command_line(sddpm, file):
    pipeline_of().save_pretrained("model")
    code, out, _ = sddpm("export", "model", "model.onnx", "--rates")
    assert code == 0 and "model.onnx" in out
    code, out, _ = sddpm("sample", "model.onnx", "--count", 2, "--steps", 2)
    assert code == 0 and "2 images" in out
    for arguments, message in [
        (("export", "model", "model.onnx"), "--force"),
        (("export", "model", "model.txt"), "give FILE.onnx or FILE.nir"),
        (("export", "model", "model.nir", "--rates"), "--rates and --half need FILE.onnx"),
        (("export", "model", "other.onnx", "--timestep", 3), "--timestep needs FILE.nir"),
        (("export", "model", "model.nir"), "upsampling"),
        (("sample", "model.onnx", "--v-threshold", "0.9", "--force"), "part of an ONNX file"),
        (("sample", "model.onnx", "--exit-tolerance", "0.9", "--force"), "spiking U-Net"),
        (("sample", "model.onnx", "--engine", "exact", "--force"), "exact"),
        (("sample", "none.onnx", "--force"), "none.onnx"),
        (("sample", "model.onnx", "--device", "cuda", "--force"), "model.onnx samples on the CPU, not on 'cuda'"),
    ]:
        code, _, error = sddpm(*arguments)
        assert code == 2 and message in error and error.splitlines()[-1].startswith("error: "), error
