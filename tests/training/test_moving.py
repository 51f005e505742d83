"""Packing and unpacking: bit for bit, or in half precision and with a warm-up; parts that are missing are named."""

import errno
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sddpm import load_pipeline
from sddpm.errors import UserError
from sddpm.moving.parts import PartReader, PartWriter, parse_size, read_manifest
from sddpm.moving.runs import pack_run, unpack_run
from sddpm.training import read_metrics, train
from sddpm.training.checkpoint import TENSOR_FILES, checkpoint_path, newest_checkpoint, read_description
from sddpm.training.optim import learning_rate, optimizer_warmup


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny):
    """A run of 6 steps with checkpoints at 3 and 6."""
    folder = tmp_path_factory.mktemp("transfer") / "run"
    train(tiny(), folder, progress=False)
    return folder


def tensors(folder, step):
    return [load_file(checkpoint_path(folder, step) / name) for name in TENSOR_FILES]


def test_a_packed_run_goes_on_with_the_same_bits(run, tiny, tmp_path):
    train(tiny("train.steps=3"), tmp_path / "half way", progress=False)
    packed = pack_run(tmp_path / "half way", tmp_path / "pack", max_part=10_000)
    assert packed.step == 3 and len(packed.sizes) > 3 and max(packed.sizes) == 10_000
    assert unpack_run(tmp_path / "pack", tmp_path / "elsewhere").step == 3
    before = load_pipeline(tmp_path / "half way").unet.state_dict()
    assert all(torch.equal(before[name], value) for name, value in
               load_pipeline(tmp_path / "elsewhere").unet.state_dict().items())  # fmt: skip
    train(tiny(), tmp_path / "elsewhere", resume=True, progress=False)
    for ours, theirs in zip(tensors(tmp_path / "elsewhere", 6), tensors(run, 6), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    rows, expected = (
        [(row["step"], row["loss"]) for row in read_metrics(f)] for f in (tmp_path / "elsewhere", run)
    )  # the steps before the move travelled along
    assert rows == expected


def test_long_packing_shows_how_far_it_is(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sddpm.moving.runs.DELAY", 0)
    for progress in (True, False):
        pack_run(run, tmp_path / f"pack {progress}", progress=progress)
        unpack_run(tmp_path / f"pack {progress}", tmp_path / f"run {progress}", progress=progress)
        shown = capsys.readouterr().err
        assert [f"{what}: 100%" in shown for what in ("unpacking", "\rpacking")] == [progress, progress]


def test_half_precision(run, tiny, tmp_path):
    whole, half = pack_run(run, tmp_path / "whole"), pack_run(run, tmp_path / "half", half=True)
    assert half.half and not whole.half
    unpack_run(tmp_path / "half", tmp_path / "elsewhere")
    step, description = newest_checkpoint(tmp_path / "elsewhere")
    assert step.name == "step-0000006" and description["moments_since"] == 6
    rounded = 0
    for ours, theirs in zip(tensors(tmp_path / "elsewhere", 6)[:2], tensors(run, 6)[:2], strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name].dtype == value.dtype
            if value.dim() > 1 and not torch.equal(ours[name], value):
                rounded += 1
                assert name != "time_embedding.table"
                torch.testing.assert_close(ours[name], value, rtol=2**-10, atol=1e-6)
            else:
                assert torch.equal(ours[name], value)
    assert rounded > 20
    assert load_file(step / TENSOR_FILES[2]) == {}


def test_half_precision_is_a_quarter_of_the_size(tiny, tmp_path):
    settings = ("train.steps=1", "model.base_channels=32", "train.checkpoint_every=1", "train.batch_size=2")
    train(tiny(*settings), tmp_path / "run", progress=False)
    whole, half = (pack_run(tmp_path / "run", tmp_path / str(half), half=half) for half in (False, True))
    assert sum(half.sizes) < 0.28 * sum(whole.sizes)


def test_the_learning_rate_warms_up_again_and_remembers_to(tiny, tmp_path):
    settings = ["train.lr=1e-3", "train.lr_schedule=constant", "train.warmup_steps=0"]
    settings.append("train.betas=[0.9,0.6]")  # 2 / (1 - 0.6) = 5 steps
    train(tiny(*settings, "train.steps=2"), tmp_path / "run", progress=False)
    pack_run(tmp_path / "run", tmp_path / "pack", half=True)
    unpack_run(tmp_path / "pack", tmp_path / "elsewhere")
    for steps in (4, 9):  # stopped once during the warm-up
        train(tiny(*settings, f"train.steps={steps}"), tmp_path / "elsewhere", resume=True, progress=False)
    rates = [row["lr"] for row in read_metrics(tmp_path / "elsewhere")]
    assert rates == pytest.approx([1e-3, 1e-3, 0.2e-3, 0.4e-3, 0.6e-3, 0.8e-3, 1e-3, 1e-3, 1e-3])
    moments = load_file(checkpoint_path(tmp_path / "elsewhere", 9) / TENSOR_FILES[2])
    assert {int(value) for name, value in moments.items() if name.startswith("step/")} == {7}


def test_warmup_of_moments_lasts_as_published(tiny):
    """Ma & Yarats, 2021: 2 / (1 - beta_2) steps, 2000 for Adam's default."""
    config = tiny("train.betas=[0.9,0.999]", "train.lr_schedule=constant").train
    assert optimizer_warmup(0, config) == pytest.approx(1 / 2000)
    assert optimizer_warmup(999, config) == pytest.approx(0.5)
    assert optimizer_warmup(1999, config) == pytest.approx(1.0)
    assert optimizer_warmup(10**6, config) == 1.0
    assert learning_rate(10, config) == config.lr


def test_back_to_the_folder_it_came_from(tiny, tmp_path):
    train(tiny("train.steps=3"), tmp_path / "here", progress=False)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    train(tiny(), tmp_path / "there", resume=True, progress=False)
    pack_run(tmp_path / "there", tmp_path / "pack")
    unpack_run(tmp_path / "pack", tmp_path / "here")
    assert newest_checkpoint(tmp_path / "here")[1]["step"] == 6
    assert [row["step"] for row in read_metrics(tmp_path / "here")] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(UserError, match="already at step 6"):
        unpack_run(tmp_path / "pack", tmp_path / "here")


def test_what_is_in_the_way_is_left_alone(run, tiny, tmp_path):
    pack_run(run, tmp_path / "pack")
    with pytest.raises(UserError, match="already exists"):
        pack_run(run, tmp_path / "pack")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").write_text("precious")
    with pytest.raises(UserError, match="is not a run"):
        unpack_run(tmp_path / "pack", tmp_path / "thesis")
    with pytest.raises(UserError, match="a file"):
        unpack_run(tmp_path / "pack", tmp_path / "thesis" / "chapter1")
    train(tiny("train.steps=3", "train.lr=1e-3"), tmp_path / "other", progress=False)
    with pytest.raises(UserError, match=r"another run, with different train\.lr"):
        unpack_run(tmp_path / "pack", tmp_path / "other")


def test_an_unpacking_that_was_killed_is_done_again(run, tmp_path, monkeypatch):
    """After every file that it writes before the checkpoint; a folder with a config of its own is left alone."""
    pack_run(run, tmp_path / "pack")
    for i, killed in enumerate(("save_model", "write_checkpoint")):
        monkeypatch.setattr(f"sddpm.moving.runs.{killed}", killed_now)
        with pytest.raises(KeyboardInterrupt):
            unpack_run(tmp_path / "pack", tmp_path / f"run{i}")
        monkeypatch.undo()
        assert (tmp_path / f"run{i}" / "config.yaml").exists()
        unpack_run(tmp_path / "pack", tmp_path / f"run{i}")
        assert newest_checkpoint(tmp_path / f"run{i}")[1]["step"] == 6
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.yaml").write_text("train: {steps: 3}\n")
    with pytest.raises(UserError, match="is not a run"):
        unpack_run(tmp_path / "pack", tmp_path / "own")


def killed_now(*arguments, **keywords):
    raise KeyboardInterrupt


def test_nothing_to_pack(run, tmp_path):
    with pytest.raises(UserError, match="is not a run"):
        pack_run(tmp_path / "nowhere", tmp_path / "pack")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no checkpoint yet"):
        pack_run(tmp_path / "empty", tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_parts_that_are_missing_or_damaged_are_named(run, tmp_path):
    pack_run(run, tmp_path / "pack", max_part=20_000)
    second, third = (tmp_path / "pack" / f"part-00{n}" for n in (2, 3))
    content = bytearray(second.read_bytes())
    content[1000] ^= 1
    second.write_bytes(content)
    with pytest.raises(UserError, match=r"part-002 in .* damaged"):
        unpack_run(tmp_path / "pack", tmp_path / "elsewhere")
    second.unlink()
    third.unlink()
    with pytest.raises(UserError, match=r"part-002, part-003 of \d+ parts missing"):
        unpack_run(tmp_path / "pack", tmp_path / "elsewhere")
    (tmp_path / "pack" / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        unpack_run(tmp_path / "pack", tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        unpack_run(tmp_path, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_an_archive_of_something_else_is_refused(tmp_path):
    for name in ("../../outside", "/etc/outside", "notes.txt"):
        folder = tmp_path / name.replace("/", "_")
        folder.mkdir()
        writer = PartWriter(folder, None)
        with tarfile.open(fileobj=writer, mode="w|") as archive:
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))
        writer.finish({"format": 1, "step": 1, "half": False, "image_channels": 1})
        with pytest.raises(UserError, match="not a part of a run"):
            unpack_run(folder, tmp_path / "elsewhere")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["parts"][0]["name"] = "../secret"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="outside its folder"):
        unpack_run(folder, tmp_path / "elsewhere")
    (folder / "manifest.json").write_text(json.dumps({"format": 2, "parts": []}))
    with pytest.raises(UserError, match="another version"):
        unpack_run(folder, tmp_path / "elsewhere")


@pytest.mark.parametrize("limit", [1, 7, 100, 1000, None])
def test_parts_hold_the_stream(tmp_path, limit):
    data = bytes(range(256)) * 3
    writer = PartWriter(tmp_path, limit)
    for start in range(0, len(data), 50):
        assert writer.write(data[start : start + 50]) == len(data[start : start + 50])
    writer.finish({})
    manifest = read_manifest(tmp_path)
    assert len(manifest["parts"]) == -(-len(data) // (limit or len(data)))
    assert b"".join((tmp_path / part["name"]).read_bytes() for part in manifest["parts"]) == data
    reader, back = PartReader(tmp_path, manifest), b""
    while piece := reader.read(33):
        assert len(piece) <= 33
        back += piece
    assert back == data


def test_the_parts_are_a_tar_archive(run, tmp_path):
    pack_run(run, tmp_path / "pack", max_part=20_000)
    stream = b"".join(path.read_bytes() for path in sorted((tmp_path / "pack").glob("part-*")))
    names = subprocess.run(["tar", "-t"], input=stream, capture_output=True, check=True).stdout.decode().split()
    assert names == ["config.yaml", "metrics.jsonl", *TENSOR_FILES, "state.json"]


@pytest.mark.parametrize(
    ("text", "size"), [("60MB", 60_000_000), ("16MiB", 2**24), ("1.5 GB", 1_500_000_000), ("512", 512), ("2kb", 2000)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "lots", "3 apples", "0", "-5MB", "1e"])
def test_sizes_that_are_none(text):
    with pytest.raises(UserError, match=r"size|at least one byte"):
        parse_size(text)


def repacked(pack, out, change):
    """A pack of the same members, each as `change(archive, member, content)` adds it."""
    out.mkdir()
    manifest, writer = read_manifest(pack), PartWriter(out, None)
    with (
        tarfile.open(fileobj=PartReader(pack, manifest), mode="r|") as old,
        tarfile.open(fileobj=writer, mode="w|", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in old:
            change(new, member, old.extractfile(member).read())
    writer.finish({key: value for key, value in manifest.items() if key != "parts"})
    return out


def sparse(archive, member, content):
    """The first member claims a terabyte, of which nothing is stored (GNU's sparse format 0.1)."""
    if member.name == "config.yaml":
        member.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(2**40),
                              "GNU.sparse.map": f"{2**40},0", "GNU.sparse.numblocks": "1"}  # fmt: skip
        member.size, content = 0, b""
    archive.addfile(member, io.BytesIO(content))


def bad_metrics(archive, member, content):
    content = b'{"step": "three"}\n' if member.name == "metrics.jsonl" else content
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def bad_history(archive, member, content):
    archive.addfile(member, io.BytesIO(content))
    if member.name == "config.yaml":
        history = tarfile.TarInfo("history.yaml")
        history.size = 8
        archive.addfile(history, io.BytesIO(b"- what: "))


def longer_than_all(archive, member, content):
    """The last member claims more than the archive holds."""
    if member.name == "state.json":
        member.size = 2**30
        archive.fileobj.write(member.tobuf(tarfile.PAX_FORMAT))
        archive.fileobj.write(content)
    else:
        archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (sparse, "holds 'config.yaml', which is not a part of a run"),
        (longer_than_all, "bytes, but state.json claims 1,073,741,824"),
        (bad_metrics, "the metrics or the history in .* cannot be read: pack the run again"),
        (bad_history, "the metrics or the history in .* cannot be read: pack the run again"),
    ],
)
def test_what_pack_does_not_write_is_refused_before_anything_is_written(run, tmp_path, monkeypatch, change, words):
    pack_run(run, tmp_path / "pack")
    pack, real, written = repacked(tmp_path / "pack", tmp_path / "bad", change), shutil.copyfileobj, []

    def copyfileobj(content, file):
        written.append(Path(file.name).name)
        real(content, file)

    monkeypatch.setattr("sddpm.moving.runs.shutil.copyfileobj", copyfileobj)
    with pytest.raises(UserError, match=words):
        unpack_run(pack, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    unwritten = {sparse: "config.yaml", longer_than_all: "state.json"}
    assert unwritten.get(change) not in written


def test_a_part_of_another_size_is_damaged(run, tmp_path):
    pack_run(run, tmp_path / "pack")
    manifest = json.loads((tmp_path / "pack" / "manifest.json").read_text())
    manifest["parts"][0]["bytes"] += 1
    (tmp_path / "pack" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"part-001 in .* damaged"):
        read_manifest(tmp_path / "pack")


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "No space left on device in "), (errno.EIO, "cannot un")])
def test_a_full_temporary_disk_is_not_a_bad_pack(run, tmp_path, monkeypatch, number, words):
    pack_run(run, tmp_path / "pack")

    def full(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("sddpm.moving.runs.shutil.copyfileobj", full)
    with pytest.raises(UserError, match=f"^{words}") as caught:
        unpack_run(tmp_path / "pack", tmp_path / "elsewhere")
    assert os.strerror(number) in str(caught.value) and not (tmp_path / "elsewhere").exists()


def test_parts_that_would_be_too_many_are_refused(run, tmp_path):
    size = sum(pack_run(run, tmp_path / "whole").sizes)
    least = -(-size // 999)
    for wrong in (60, least - 1, 0, -1):
        with pytest.raises(UserError, match=f"`max_part` must be at least {least:,} bytes, not {wrong:,}:"):
            pack_run(run, tmp_path / "pack", max_part=wrong)
        assert not (tmp_path / "pack").exists()
    sizes = pack_run(run, tmp_path / "pack", max_part=least).sizes
    assert sum(sizes) == size and 990 < len(sizes) <= 999
    names = [path.name for path in sorted((tmp_path / "pack").glob("part-*"))]
    assert names == [part["name"] for part in read_manifest(tmp_path / "pack")["parts"]]


def test_the_command_line(run, tmp_path, start):
    def sddpm(*arguments):
        process = start(["-m", "sddpm", *arguments])
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    code, out, err = sddpm("pack", run, tmp_path / "pack", "--max-part", "30KB", "--half")
    assert code == 0, err
    assert "step 6 in half precision" in out and "parts" in out
    code, out, err = sddpm("unpack", tmp_path / "pack", tmp_path / "elsewhere")
    assert code == 0 and "warm up again" in out, err
    assert read_description(checkpoint_path(tmp_path / "elsewhere", 6))["step"] == 6
    code, _, err = sddpm("pack", run, tmp_path / "again", "--max-part", "much")
    assert code == 2 and err.startswith("error: not a size")
