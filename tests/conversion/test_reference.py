"""Reference checkpoints in, refused, and out again."""

import io
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from sddpm import SpikingUNet2DModel, UserError
from sddpm.conversion import from_reference, save_reference, to_reference
from sddpm.conversion.checkpoints import infer_config

CASES = ["sddpm_rgb16_T4", "sddpm_grey32_T8", "sdm_tsm_rgb16_T4"]


@pytest.fixture
def checkpoint(vectors_dir):
    """A reference checkpoint, its path and a function that writes a changed one."""
    path = vectors_dir / "sddpm_rgb16_T4.ckpt.pt"
    return path, torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", CASES)
def test_configuration_is_read_off_the_tensors(vectors_dir, name):
    case = torch.load(vectors_dir / f"{name}.case.pt", weights_only=True)["config"]
    conversion = from_reference(vectors_dir / f"{name}.ckpt.pt")
    config = conversion.model.config
    assert config.base_channels == case["ch"]
    assert list(config.channel_mult) == case["ch_mult"]
    assert config.num_res_blocks == case["num_res_blocks"]
    assert config.in_channels == config.out_channels == case["img_ch"]
    assert config.sample_size == case["size"]
    assert config.num_train_timesteps == case["T"]
    assert config.temporal_modulation == name.startswith("sdm_tsm")
    assert ("T" in conversion.found) == config.temporal_modulation
    assert conversion.summary().count("\n") == 0


def test_what_was_assumed_is_said(vectors_dir):
    summary = from_reference(vectors_dir / "sddpm_grey32_T8.ckpt.pt", T=8).summary()
    assert "given T=8" in summary and "assumed neuron=if, v_threshold=1.0" in summary
    assert "channel_mult=[1, 2, 2, 4]" in summary and "sample_size=32" in summary


def test_given_values_are_used_and_checked(vectors_dir):
    path = vectors_dir / "sdm_tsm_rgb16_T4.ckpt.pt"
    model = from_reference(path, v_threshold=0.997, neuron="lif").model
    assert {n.v_threshold for n in model.neurons().values()} == {0.997} and model.config.neuron == "lif"
    with pytest.raises(UserError, match="shows T=4, but T=8 was given"):
        from_reference(path, T=8)
    with pytest.raises(UserError, match="shows sample_size=16, but sample_size=32"):
        from_reference(path, sample_size=32)


@pytest.mark.parametrize("name", CASES)
def test_export_has_exactly_the_reference_s_tensors(vectors_dir, tmp_path, name):
    path = vectors_dir / f"{name}.ckpt.pt"
    original = torch.load(path, weights_only=True)["net_model"]
    exported = to_reference(from_reference(path).model)
    assert list(exported) == list(original)
    for key, tensor in original.items():
        assert exported[key].dtype == tensor.dtype and torch.equal(exported[key], tensor), key
    save_reference(from_reference(path).model, tmp_path / "out.pt")
    written = torch.load(tmp_path / "out.pt", weights_only=True)
    assert {"net_model", "step", "x_T"} <= set(written) and list(written["net_model"]) == list(original)
    from_reference(tmp_path / "out.pt")


@pytest.mark.parametrize("tensors", [455, 522])
def test_tensor_counts_of_the_published_network(tensors):
    with torch.device("meta"):
        model = SpikingUNet2DModel(temporal_modulation=tensors == 522)
    from sddpm.conversion.names import reference_names

    names = reference_names(model.config)
    assert set(names) == set(model.state_dict()) and len(names) == tensors


def test_wrapped_by_data_parallel_or_bare(checkpoint, tmp_path):
    path, content = checkpoint
    weights = content["net_model"]
    expected = from_reference(path).model.state_dict()
    for i, variant in enumerate(
        [{"net_model": {f"module.{k}": v for k, v in weights.items()}, "x_T": content["x_T"]}, dict(weights)]
    ):
        torch.save(variant, tmp_path / f"{i}.pt")
        state = from_reference(tmp_path / f"{i}.pt", **({"sample_size": 16} if i else {})).model.state_dict()
        assert all(torch.equal(state[k], expected[k]) for k in expected)


def changed(tmp_path, content, edit):
    weights = dict(content["net_model"])
    edit(weights)
    torch.save({**content, "net_model": weights}, tmp_path / "changed.pt")
    return tmp_path / "changed.pt"


def test_every_missing_tensor_is_named(checkpoint, tmp_path):
    _, content = checkpoint
    names = list(content["net_model"])
    for name in [*names[::18], "conv.weight", "tail_conv.weight", "downblocks.1.conv.weight"]:
        path = changed(tmp_path, content, lambda w, name=name: w.pop(name))
        with pytest.raises(UserError, match=name.replace(".", r"\.")):
            from_reference(path)


def test_surplus_and_missing_are_both_named(checkpoint, tmp_path):
    _, content = checkpoint

    def edit(weights):
        weights["downblocks.0.conv3.weight"] = weights.pop("downblocks.0.conv2.weight")

    with pytest.raises(UserError, match=r"lacks downblocks.0.conv2.weight and has surplus downblocks.0.conv3.weight"):
        from_reference(changed(tmp_path, content, edit))


def test_wrong_shape_and_nan_are_named(checkpoint, tmp_path):
    _, content = checkpoint
    with pytest.raises(UserError, match=r"bn_identity.weight is \[3\], expected \[16\]"):
        from_reference(changed(tmp_path, content, lambda w: w.__setitem__("bn_identity.weight", torch.zeros(3))))
    with pytest.raises(UserError, match=r"tail_bn.bias has values that are not finite"):
        from_reference(
            changed(tmp_path, content, lambda w: w.__setitem__("tail_bn.bias", torch.full((16,), torch.nan)))
        )


def test_truncated_at_every_tenth(checkpoint, tmp_path):
    path, _ = checkpoint
    data = path.read_bytes()
    for tenth in range(10):
        (tmp_path / "cut.pt").write_bytes(data[: len(data) * tenth // 10])
        with pytest.raises(UserError, match=r"cut\.pt"):
            from_reference(tmp_path / "cut.pt")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_pickle_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"net_model": Bomb()}, "bomb.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"net_model": Bomb()}))
    for name in ("bomb.pt", "plain.pt"):
        with pytest.raises(UserError, match=name):
            from_reference(name)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {"net_model": {}}, {"net_model": {"a": torch.zeros(1)}}])
def test_other_files_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"SDDPM checkpoint|expected"):
        from_reference(tmp_path / "other.pt")


def test_no_torch_file_at_all(tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    buffer = io.BytesIO()
    torch.save({}, buffer)
    for path in (tmp_path / "text.pt", tmp_path / "absent.pt", tmp_path):
        with pytest.raises(UserError):
            from_reference(path)


@pytest.mark.parametrize(
    "given",
    [{"pure": True}, {"attention_resolutions": [8]}, {"num_classes": 3}, {"patch_size": 2}, {"dims": 1}],
)
def test_what_the_layout_does_not_express_is_not_imported(checkpoint, given):
    with pytest.raises(UserError, match=f"the reference's network has {next(iter(given))}="):
        from_reference(checkpoint[0], **given)


def test_a_list_given_for_a_tuple_is_equal(checkpoint):
    multiples = from_reference(checkpoint[0]).found["channel_mult"]
    assert from_reference(checkpoint[0], channel_mult=list(multiples), attention_resolutions=[]).given == {
        "attention_resolutions": ()
    }


@pytest.mark.parametrize("overrides", [{"patch_size": 2}, {"readout_decay": 0.9}, {"neuron": "lif"}])
def test_what_the_reference_cannot_express_is_not_exported(tmp_path, overrides):
    model = SpikingUNet2DModel(sample_size=8, base_channels=4, channel_mult=(1, 2), num_res_blocks=1, **overrides)
    with pytest.raises(UserError, match=next(iter(overrides))):
        save_reference(model, tmp_path / "out.pt")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_what_was_there(checkpoint, tmp_path, monkeypatch):
    path, _ = checkpoint
    model = from_reference(path).model
    target = tmp_path / "out.pt"
    shutil.copy(path, target)

    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(UserError, match="No space left on device"):
        save_reference(model, target)
    assert target.read_bytes() == path.read_bytes() and list(tmp_path.iterdir()) == [target]


def test_a_checkpoint_without_channels_is_refused():
    shapes = {"time_embedding.timembedding.0.weight": (10, 4), "conv.weight": (0, 1, 3, 3)}
    shapes |= {"tail_conv.weight": (1, 4, 3, 3), "downblocks.0.bn1.weight": (4,)}
    with pytest.raises(UserError, match="a convolution has no channels"):
        infer_config({name: torch.zeros(shape) for name, shape in shapes.items()})
