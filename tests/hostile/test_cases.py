"""Hostile uses of the command line: each ends in one line and exit code 2, in little memory, and loses nothing.

The tables say: what is done to the folder of real files (see conftest.py), the command, and words of the refusal.
"""

import json
import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.bounded import command

UNET = "model/unet/config.json"
SCHEDULER = "model/scheduler/scheduler_config.json"
SAMPLE = "sample model --count 1 --steps 1 --out out.npz"
STATE = "run/checkpoints/step-0000002/state.json"


@dataclass(frozen=True)
class Case:
    """harm: done to the folder first. command: what is tried, without `sddpm`. words: of the refusal."""

    name: str
    harm: Callable[[Path], Any]
    command: str
    words: str


def nothing(_folder: Path) -> None:
    pass


def with_json(name: str, **values: Any) -> Callable[[Path], Any]:
    def harm(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **values}))

    return harm


def with_text(name: str, text: str | bytes) -> Callable[[Path], Any]:
    def harm(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)

    return harm


def pipe(name: str) -> Callable[[Path], Any]:
    return lambda folder: os.mkfifo(folder / name)


def no_permission(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).chmod(0)


def many_images(folder: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (100000000000, 8, 8), }".ljust(117) + b"\n"
    with zipfile.ZipFile(folder / "many.npz", "w") as archive:
        archive.writestr("arr_0.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(640))


def spread_tensor(folder: Path) -> None:
    content = torch.load(folder / "reference.pt", weights_only=True)
    content["net_model"]["conv.weight"] = torch.zeros(1).expand(10**6, 10**6)
    torch.save(content, folder / "spread.pt")


def statistics_of(mu: Any, sigma: Any) -> Callable[[Path], Any]:
    return lambda folder: np.savez(folder / "bad.npz", mu=np.array(mu, float), sigma=np.array(sigma, float))


def packed_unusually(folder: Path) -> None:
    with (
        zipfile.ZipFile(folder / "images.npz") as old,
        zipfile.ZipFile(folder / "lzma.npz", "w", zipfile.ZIP_LZMA) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))


def encrypted(folder: Path) -> None:
    content = bytearray((folder / "images.npz").read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (folder / "secret.npz").write_bytes(content)


def sharded_pickle(folder: Path) -> None:
    weights = folder / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("x.bin"))
    index = {"weight_map": {"conv.weight": "x.bin"}}
    weights.with_name(f"{weights.name}.index.json").write_text(json.dumps(index))


def flipped_weights(folder: Path) -> None:
    weights = folder / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 16
    weights.write_bytes(content)


def flipped_checkpoint(folder: Path) -> None:
    content = bytearray((folder / "reference.pt").read_bytes())
    content[len(content) // 2] ^= 16
    (folder / "flipped.pt").write_bytes(content)


DIGITS = "9" * 5000
LAUGHS = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 25))
EPS = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
EVALUATE = "evaluate images.npz --metric fid --reference"

SIZES = [
    Case("T of a billion", with_json(UNET, T=10**9), SAMPLE, "T must be at most"),
    Case("a million channels", with_json(UNET, base_channels=10**6), SAMPLE, "base_channels must be at most"),
    Case("60,000 channels", with_json(UNET, base_channels=60_000), SAMPLE, "GiB of memory"),
    Case("3e9 timesteps, network", with_json(UNET, num_train_timesteps=3 * 10**9), SAMPLE, "must be at most"),
    Case("3e9 timesteps, scheduler", with_json(SCHEDULER, num_train_timesteps=3 * 10**9), SAMPLE, "must be from 1 to"),
    Case("1e11 images", many_images, "evaluate many.npz --metric is", "says [100000000000, 8, 8] uint8"),
    Case("a stride of 0", spread_tensor, "convert spread.pt out", "are incomplete"),
    Case("billion laughs", with_text("c.yaml", f"a0: &a0 [x]\n{LAUGHS}"), "train c.yaml --dry-run", "100,000 values"),
    Case("an anchor in itself", with_text("c.yaml", "data: &a [*a]"), "train c.yaml --dry-run", "nested more than 50"),
    Case("500,000 keys", with_text("c.yaml", "".join(f"k{i}: 1\n" for i in range(500_000))), "train c.yaml", "larger"),
    Case(
        "500,000 keys of JSON",
        with_text("model/model_index.json", json.dumps({f"k{i}": i for i in range(500_000)})),
        SAMPLE,
        "500,000 keys",
    ),
    Case("a billion seeds", nothing, "sample model --seeds 0-999999999", "more than 1,000,000 seeds"),
    Case("seeds of many digits", nothing, f"sample model --seeds {'9' * 5000}", "below 2^63"),
    Case(
        "a billion samples",
        nothing,
        "sample model --count 1000000000",
        "must be at least 1 and at most 1,000,000",
    ),
    Case("a million pixels a pixel", nothing, "sample model --scale 1000000", "must be at least 1 and at most 64"),
    Case("a picture of a million", nothing, "sample model --count 1000000 --scale 9", "is too large"),
    Case("a million frames", nothing, "interpolate model --frames 1000000 --seeds 0-9", "is too large"),
    Case(
        "a billion draws",
        nothing,
        "inpaint model image.png --mask left --draws 1000000000",
        "must be at least 1 and at most",
    ),
]
PIPES = [
    Case("as a model index", pipe("p"), "sample p", "p is not a model"),
    Case("as a config", pipe("p.yaml"), "train p.yaml", "no config"),
    Case("as a checkpoint", pipe("p.pt"), "convert p.pt out", "is a pipe or a device"),
    Case("as samples", pipe("p.npz"), "evaluate p.npz --metric is", "p.npz"),
    Case("as a zip", pipe("p.zip"), "evaluate p.zip --metric is", "is a pipe or a device"),
    Case("as an image", pipe("p.png"), "inpaint model p.png --mask left", "is a pipe or a device"),
    Case("as a mask", pipe("p.png"), "inpaint model image.png --mask p.png", "is a pipe or a device"),
    Case("as weights", pipe("p.pth"), f"{EVALUATE} images.npz --inception p.pth", "no Inception weights"),
    Case("as an output", pipe("p.npz"), "sample model --count 1 --out p.npz --force", "is a device or a pipe"),
    Case("a device", nothing, "evaluate /dev/zero --metric is", "/dev/zero"),
    Case("a device as an output", nothing, "sample model --format npz --out /dev/null --force", "a device or a pipe"),
]
FILES = [
    Case("text as a checkpoint", with_text("x.pt", "hello"), "convert x.pt out", "is not a torch checkpoint"),
    Case("nothing as a checkpoint", with_text("x.pt", ""), "convert x.pt out", "is not a torch checkpoint"),
    Case("an image as a checkpoint", nothing, "convert image.png out", "is not a torch checkpoint"),
    Case("an EPS as an image", with_text("e.png", EPS), "inpaint model e.png --mask left", "not an image of"),
    Case("an EPS as a mask", with_text("e.png", EPS), "inpaint model image.png --mask e.png", "not an image of"),
    Case("flipped bits of weights", flipped_weights, SAMPLE, "its hash differs"),
    Case("flipped bits of a checkpoint", flipped_checkpoint, "convert flipped.pt out", "is damaged"),
    Case("shards of pickles", sharded_pickle, SAMPLE, "names 'x.bin'"),
    Case("deep JSON", with_text("model/model_index.json", "[" * 10**6), SAMPLE, "nested too deeply"),
    Case("JSON of 5,000 digits", with_text("model/model_index.json", f'{{"a": {DIGITS}}}'), SAMPLE, "not valid JSON"),
    Case("no text", with_text("model/model_index.json", b"\xff\xfe{"), SAMPLE, "not UTF-8"),
    Case("quantisation", with_json(UNET, quantization_config={"a": 1}), SAMPLE, "quantised weights"),
    Case("v_reset of x", with_json(UNET, v_reset="x"), SAMPLE, "v_reset must be a finite number"),
    Case("no attention", with_json(UNET, attention_resolutions=3), SAMPLE, "cannot make a network from"),
    Case("moments of x", with_json(SCHEDULER, moments="x"), SAMPLE, "moments must be from"),
    Case("statistics of none", statistics_of([], np.zeros((0, 0))), f"{EVALUATE} bad.npz", "at least one feature"),
    Case("statistics of 1e308", statistics_of([1e308], [[1e308]]), f"{EVALUATE} bad.npz", "not below 1e+100"),
    Case("statistics of NaN", statistics_of([np.nan], [[1]]), f"{EVALUATE} bad.npz", "not finite"),
    Case("unknown compression", packed_unusually, "evaluate lzma.npz --metric is", "that NumPy does not write"),
    Case("encryption", encrypted, "evaluate secret.npz --metric is", "is encrypted"),
    Case("metrics that are none", with_text("run/metrics.jsonl", "[1]\n"), "release run out --hardware x", "line 1 is"),
    Case("a state of text", with_json(STATE, step="2"), "train --resume --out run", "state.json is incomplete"),
    Case("a state of years", with_json(STATE, seconds="long"), "train --resume --out run", "state.json is incomplete"),
    Case("a manifest of a string", with_json("pack/manifest.json", parts="x"), "unpack pack out", "is damaged"),
    Case("a manifest without half", with_json("pack/manifest.json", half=None), "unpack pack out", "half missing or"),
    Case("a manifest of channels", with_json("pack/manifest.json", image_channels=3), "unpack pack out", "is damaged"),
    Case("a manifest of parents", with_json("pack/manifest.json", parts=[{"name": "..", "sha256": "", "bytes": 1}]),
         "unpack pack out", "names parts outside"),
    Case("a history of text", with_text("run/history.yaml", "x"), "release run out --hardware x", "history.yaml"),
]  # fmt: skip
TEXTS = [
    Case(f"YAML: {text[:30]!r}", with_text("c.yaml", text), "train c.yaml --dry-run", "c.yaml")
    for text in (
        "data: {a: 2001-99-99}", f"data: {'[' * 5000}", f"train: {{steps: {DIGITS}}}",
        "train: !!python/object:os.system {}",
        "a: !!binary ''\n? [x]\n: 1", "a: !!timestamp x", "a: !!float ''", "a: !!int x", "data: !!set {x}", "- 1", "%",
        "train: {lr: .inf}", "train: {lr: .nan}", "? {a: 1}\n: 2", "2001-01-01: 3", "data: [1]", "\0",
        "model: {kind: [ann]}",
    )
]  # fmt: skip
OPTIONS = [
    Case("betas of 1", nothing, "train digits --dry-run --set train.betas=[0.9,1.0]", "betas"),
    Case("a kind of lists", nothing, "train digits --dry-run --set model.kind=[ann]", "model.kind"),
    Case("lr of infinity", nothing, "train digits --dry-run --set train.lr=.inf", "train.lr"),
    Case("NaN as a threshold", nothing, "convert reference.pt out --v-threshold nan", "v_threshold must be a positive"),
    Case("parts of infinity", nothing, "pack run out --max-part inf", "not a size: 'inf'"),
    Case("parts of NaN", nothing, "pack run out --max-part nan", "not a size: 'nan'"),
    Case("no energy at a time", nothing, "energy model --batch-size 0 --count 1", "must be at least 1"),
    Case("no such user", nothing, "evaluate ~nosuchuser/x --metric is", "no such user"),
    Case("a long name", nothing, f"sample model --count 1 --out {'x' * 300}.png", "longer than 255 bytes"),
    Case("a long model", nothing, f"sample {'x' * 300}", "File name too long"),
    Case("a path in the way", nothing, "sample image.png/x", "no model at"),
]
LOST = [
    Case("a run over itself", nothing, "release run run --hardware x --force", "is also an input"),
    Case("a run's parent", nothing, "release run . --hardware x --force", "contains run"),
    Case("the parent of all", nothing, "release run .. --hardware x --force", "contains run"),
    Case("OUT forgotten", nothing, "average run model model --force", "holds a run and will not be replaced"),
    Case("OUT among the models", nothing, "average model model run --force", "is also an input"),
    Case("a file over a folder", nothing, "info model --modulation images --force", "file name"),
    Case(
        "a figure over a folder",
        lambda folder: (folder / "x.png").mkdir(),
        "moments run --plot x.png --force",
        "x.png is a folder",
    ),
    Case("an export over a folder", nothing, "convert model images --force", "is a folder"),
    Case("a pack over images", nothing, "pack run images --force", "was not written by sddpm"),
    Case("a model over a run", nothing, "convert reference.pt run --force", "holds a run"),
    Case("a run's config", nothing, "evaluate run --metric is --out run/config.yaml --force", "is a part of run"),
    Case("one output twice", nothing, "evaluate run --metric is --out same --grid same", "different names"),
    Case("no suffix", nothing, "moments run --plot figure --force", "ends in .png"),
]
TABLES = {"sizes": SIZES, "pipes": PIPES, "files": FILES, "texts": TEXTS, "options": OPTIONS, "lost": LOST}
CASES = [pytest.param(case, id=f"{kind}: {case.name}") for kind, cases in TABLES.items() for case in cases]
SAMPLED = CASES[::6]


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def check(case: Case, place: Path) -> None:
    case.harm(place)
    before = snapshot(place)
    code, _, err = command(case.command.split(" "), place, memory=2 << 30, seconds=60)
    lines = err.strip().splitlines()
    assert code == 2, err[-3000:]
    assert lines[-1].startswith("error: ") and case.words in lines[-1] and "Traceback" not in err, err[-3000:]
    assert snapshot(place) == before


@pytest.mark.parametrize("case", SAMPLED)
def test_a_sample(place, case):
    check(case, place)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_all(place, case):
    check(case, place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(place):
    check(Case("no permission", no_permission("model/model_index.json"), SAMPLE, "Permission denied"), place)


@pytest.mark.parametrize("variable", ["WORLD_SIZE"])
def test_processes_that_are_no_number(place, monkeypatch, variable):
    monkeypatch.setenv(variable, "abc")
    code, _, err = command(["train", "--resume", "--out", "run"], place)
    assert code == 2 and err.count("\n") == 1, err


def test_a_tiny_memory_is_one_line(place):
    """Memory that runs out while it works, not before."""
    arguments = "sample model --count 200000 --batch-size 200000 --steps 1 --out out.npz"
    code, _, err = command(arguments.split(), place, memory=256 << 20, seconds=60)
    assert code == 2 and "too little memory" in err.splitlines()[-1], err[-2000:]
    assert not (place / "out.npz").exists()
