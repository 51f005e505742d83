"""A folder in which the commands and the Python of a document run: small data sets in the published formats, stand-ins
for weights, tiny networks, and few steps of everything."""

import contextlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.main import get_command

import sddpm.training
from sddpm.cli.main import app
from sddpm.errors import UserError
from sddpm.evaluation.features.fad import FadEncoder
from sddpm.training.config_files import config_names
from tests.helpers.documents import FENCE, ROOT, commands

FAST = ("train.steps=2", "train.batch_size=4", "train.warmup_steps=1", "train.sample_every=0", "train.compile=false",
        "train.checkpoint_every=1", "train.precision=float32", "train.tensorboard=false", "train.log_every=1",
        "train.accumulation=1")  # fmt: skip
NARROW = ("model.base_channels=8", "model.channel_mult=[1,2]", "model.num_res_blocks=1", "model.patch_size=1")
CHECKPOINT = ("model.base_channels=16", "model.channel_mult=[1,2,2]", "model.num_res_blocks=1", "data.image_size=16")
SMALL = {  # the most that an option may be, and what it is where it is not given (None: nothing)
    "sample": {"--count": 2, "--steps": 2, "--batch-size": 2},
    "evaluate": {"--samples": 140, "--steps": 1},
    "energy": {"--count": 1, "--steps": 1},
    "inpaint": {"--count": 1, "--draws": 1, "--steps": 2, "--resamplings": 1, "--jump-length": 1},
    "interpolate": {"--frames": 2, "--steps": 2},
    "moments": {"--samples": 3},
    "guide": {"--samples": 140, "--steps": 1, "--budget": 8, "--seed-sets": 1, "--validation-sets": 1, "--refine": 0,
              "--resamples": 20, "--proxy-images": 10, "--proxy-seeds": 2, "--proxy-budget": 4},
    "convert-ann": {"--finetune-steps": 1, "--report-images": 2, "--batch-size": 2},
    "distill": {"--halve-from": 8},
    "ema": {"--step": 2},
}  # fmt: skip
ADDED = {  # of these, what is added where a command leaves it out
    "sample": ("--count", "--steps"),
    "evaluate": ("--samples", "--steps"),
    "energy": ("--count", "--steps"),
    "inpaint": ("--count", "--steps", "--draws", "--resamplings"),
    "interpolate": ("--frames", "--steps"),
    "moments": ("--samples",),
    "guide": ("--steps", "--seed-sets", "--validation-sets", "--refine", "--resamples", "--proxy-images"),
    "convert-ann": ("--report-images", "--batch-size"),
}
PLACEHOLDER = re.compile(r"\.\.\.|[$]|USER/MODEL|\b(SOLVER|FOLDER|RELEASED|CONFIG|MODEL|RUN|OUT|PATH)\b|FILE\.")
ORIGINS = {"mine": "fashion_mnist_small", "first": "fashion_mnist_small", "second": "fashion_mnist_small",
           "quantized": "fashion_mnist_small_quantized"}  # fmt: skip


class Network(Exception):
    """A command needs the network."""


class Workshop:
    """Runs what a document shows, in the working folder."""

    def __init__(self, folder: Path, page: str):
        self.folder, self.page, self.ran = folder, page, []
        make_files(folder)

    def run_page(self, text: str, *, python: bool = True) -> None:
        """All commands and Python blocks, in their order."""
        names: dict = {"__name__": "__page__"}
        at = 0
        for fence in FENCE.finditer(text):
            self.run_commands(text[at : fence.start()])
            at = fence.end()
            if fence[1] == "python" and python:
                self.run_python(fence[2], names)
            elif fence[1] == "sh":
                self.run_commands(fence[0] + "\n")
        self.run_commands(text[at:])

    def run_commands(self, text: str) -> None:
        for verb, *words in commands(text):
            if (
                words
                and words[0] not in (".", "--guidance-scale")
                and not PLACEHOLDER.search(" ".join(words).replace("$DATA/", ""))
            ):
                with contextlib.suppress(Network):
                    self.run_command(verb, words)

    def run_command(self, verb: str, words: list[str]) -> None:
        """One command, made small. Raises what it raises."""
        words = [word.replace("$DATA", "data").replace("data/fashion_mnist", "data/fashion-mnist") for word in words]
        if needs_network(verb, words):
            raise Network(verb)
        if verb == "train":
            words = self.small_training(words)
        elif verb == "distill":
            words = [*small(verb, words), *as_settings(FAST)]
        else:
            words = small(verb, words)
        if verb in ("distill", "unpack") and "--resume" not in words:
            for old in Path().glob(f"{words[1]}*"):
                shutil.rmtree(old)
        for word in words[: 1 + words.count("average")] if verb != "average" else words:
            self.make_run(word)
        if "--force" in options_of(verb) and "--force" not in words:
            words = [*words, "--force"]
        self.call(verb, words)
        self.ran.append(verb)

    def call(self, verb: str, words: list[str]) -> None:
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                get_command(app).main([verb, *words, "--quiet"], standalone_mode=False)
        except UserError as error:
            raise AssertionError(f"{self.page}: sddpm {verb} {' '.join(words)}: {error}") from error

    def make_run(self, word: str) -> None:
        """Train the run that a command begins with, if it is not there yet."""
        found = re.match(r"runs/([\w-]+)", word)
        if found and not Path("runs", found[1]).exists():
            name = ORIGINS.get(found[1], found[1])
            assert name in config_names(), f"{self.page}: nothing makes {word}"
            self.call("train", self.small_training([name, "--out", f"runs/{found[1]}"]))

    def small_training(self, words: list[str]) -> list[str]:
        """A training of two steps, of a narrow network unless it starts from a model of the package."""
        words = list(words)
        if "--resume" in words:
            self.make_run(words[words.index("--out") + 1])
            return words
        for option in ("--init-from", "--set"):
            for before, value in pairwise(words):
                if before == option:
                    self.make_run(value.removeprefix("train.teacher="))
        if words[0].endswith(".yaml") or words[0].startswith("runs/"):  # as wide as what made it
            self.make_run(words[0])
            settings = list(FAST)
        else:
            settings = self.settings_of(words)
        if "--download" in words:
            words.remove("--download")
        if "--data" not in words and (data := data_of(words[0])):
            words += ["--data", data]
        out = Path(words[words.index("--out") + 1]) if "--out" in words else Path("runs", Path(words[0]).stem)
        if "--dry-run" not in words:
            shutil.rmtree(out, ignore_errors=True)
        return [*words, *as_settings(settings)]

    def settings_of(self, words: list[str]) -> list[str]:
        given = {value.partition("=")[0] for before, value in pairwise(words) if before == "--set"}
        given -= {"model.base_channels"}
        source = words[words.index("--init-from") + 1] if "--init-from" in words else "runs/"
        packaged = not source.startswith("runs/")
        settings = [*FAST, *(CHECKPOINT if source.startswith("models/") else () if packaged else NARROW)]
        if "train.ema_power" in given:
            settings.append("train.ema_snapshot_every=1")
            given.discard("train.ema_snapshot_every")
        text = (ROOT / "configs" / f"{words[0]}.yaml").read_text(encoding="utf-8")
        config = yaml.safe_load(text)
        if config["data"]["dataset"] not in ("digits", "signals", "gaussian-process") and not packaged:
            settings.append("data.image_size=16")
        if len(config["model"]["channel_mult"]) == 1:  # NIR's
            settings = [each for each in settings if "channel_mult" not in each]
        if "train.steps" in given:
            given.discard("train.steps")
        return [each for each in settings if each.partition("=")[0] not in given]

    def run_python(self, code: str, names: dict) -> None:
        for found in re.finditer(r"\"(runs/[\w-]+)\"", code):
            if not re.search(rf"(train|distill)\(.*\"{found[1]}\"", code):
                self.make_run(found[1])
        quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
        with pytest.MonkeyPatch.context() as patch, quiet[0], quiet[1]:
            patch.setattr(sddpm.training, "load_config", shortened(sddpm.training.load_config))
            exec(compile(code, self.page, "exec"), names)


def as_settings(settings: Iterable[str]) -> list[str]:
    """As options of the command."""
    return [word for setting in settings for word in ("--set", setting)]


def options_of(verb: str) -> set[str]:
    return {option for parameter in get_command(app).commands[verb].params for option in parameter.opts}  # type: ignore[attr-defined]


def needs_network(verb: str, words: list[str]) -> bool:
    """Whether a command fetches what no stand-in is for (Inception's weights, a runtime), needs a file that such a
    command would have made, or serves for ever."""
    if verb == "app" or {"--push", "--web"} & set(words):
        return True
    if verb == "release" and "--evaluation" in words:
        return not Path(words[words.index("--evaluation") + 1]).exists()
    if verb in ("evaluate", "guide"):
        return "--fad-weights" not in words
    return verb == "stats" and "--fad-weights" not in words


def has_effect(verb: str, option: str, words: list[str]) -> bool:
    """Whether a command with these words takes an option that makes it small; without effect it would be refused."""
    if verb == "guide" and "sampler" in words:
        return option not in ("--steps", "--proxy-images")
    if verb == "convert-ann":
        measures = bool({"--report", "--plot"} & set(words))
        return measures or (option == "--batch-size" and "--finetune-steps" in words)
    if verb == "evaluate" and option == "--steps":
        return ":" not in words[0] and not words[0].endswith((".npz", ".zip"))
    return True


def small(verb: str, words: list[str]) -> list[str]:
    """The options of a command that cost time, at their smallest."""
    limits, words = SMALL.get(verb, {}), list(words)
    for index, word in enumerate(words[:-1]):
        if word in limits and words[index + 1].isdigit():
            words[index + 1] = str(min(int(words[index + 1]), limits[word]))
        if word == "--seeds" and verb != "interpolate" and "-" in words[index + 1]:
            words[index + 1] = "0-1"
    added = [option for option in ADDED.get(verb, ()) if option not in words and has_effect(verb, option, words)]
    if {"--timesteps", "--sampler", "--search"} & set(words) or any(re.search(r"-4$", word) for word in words):
        added = [option for option in added if option != "--steps" or verb == "guide"]
    if "--seeds" in words or "--images" in words or "--published" in words:
        added = [option for option in added if option not in ("--count", "--steps") or "--seeds" in words]
        added = [option for option in added if option != "--count"]
    if verb == "guide":
        search = words[words.index("--search") + 1] if "--search" in words else "scalar"
        if search == "sampler":
            added += ["--proxy-seeds", "--proxy-budget"]
        if search in ("scalar", "x0-scale", "sampler"):
            words += ["--grid", "0.99,1" if search == "scalar" else "1,1.05"]
        else:  # one number after another, which are not refined
            added.remove("--refine")
    return [*words, *(word for option in added for word in (option, str(limits[option])))]


def data_of(config: str) -> str | None:
    """Where the stand-in for a config's data lies."""
    for name, folder in (("fashion_mnist", "fashion-mnist"), ("mnist", "mnist"), ("cifar10", "cifar10"),
                         ("celeba", "celeba"), ("lsun", "bedroom")):  # fmt: skip
        if config.startswith(name):
            return f"data/{folder}"
    return "profiles.npz" if config.startswith("clothing") else None


def make_files(folder: Path) -> None:
    """Data, weights and other files that documents name."""
    rng = np.random.default_rng(0)
    for name in ("mnist", "fashion-mnist"):
        (folder / "data" / name).mkdir(parents=True)
        for split in ("train", "t10k"):
            write_idx(folder / "data" / name / f"{split}-images-idx3-ubyte", rng.integers(0, 256, (200, 28, 28)))
            write_idx(folder / "data" / name / f"{split}-labels-idx1-ubyte", np.arange(200) % 10)
    (folder / "data" / "cifar10").mkdir()
    for split in ("train", "test"):
        write_zip(folder / "data" / "cifar10" / f"{split}.zip", rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8))
    for name, size in (("celeba", (218, 178)), ("bedroom", (72, 80)), ("mine", (40, 40))):
        (folder / "data" / name).mkdir()
        for index in range(12):
            picture = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
            picture.save(folder / "data" / name / f"{index}.png")
    (folder / "data" / "fad").mkdir()
    torch.manual_seed(0)
    for name in ("fashion", "mnist"):
        torch.save(FadEncoder(1).state_dict(), folder / f"{name}_64.pth")
        shutil.copy(folder / f"{name}_64.pth", folder / "data" / "fad")
    features = rng.normal(size=(500, 64))
    for name in ("fashion_test_64.npz", "mnist_test_64.npz"):
        for place in (folder, folder / "data" / "fad"):
            np.savez(place / name, mu=features.mean(0), sigma=np.cov(features, rowvar=False))
    signals = rng.normal(size=(40, 2, 28)).astype(np.float32)
    np.savez(folder / "profiles.npz", signals=signals, labels=np.arange(40) % 10)
    np.savez(folder / "ecg.npz", signals=rng.normal(size=(8, 1, 256)).astype(np.float32))
    for name, picture in (("photo.png", rng.integers(0, 256, (16, 16))), ("mask.png", np.eye(16) * 255)):
        Image.fromarray(picture.astype(np.uint8)).save(folder / name)
    shutil.copy(ROOT / "configs" / "fashion_mnist_small.yaml", folder / "my.yaml")
    shutil.copy(ROOT / "src/sddpm/energy/cost_models/45nm.yaml", folder / "my-chip.yaml")
    vectors = ROOT / "tests" / "vectors" / "sddpm_rgb16_T4.ckpt.pt"
    for name in ("cifar10ckpt.pt", "checkpoint.pt"):
        shutil.copy(vectors, folder / name)


def write_idx(path: Path, array: np.ndarray) -> None:
    """As described at yann.lecun.com/exdb/mnist."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def write_zip(path: Path, pictures: np.ndarray) -> None:
    """Images and their labels, as EDM packs them."""
    with zipfile.ZipFile(path, "w") as archive:
        labels = []
        for index, picture in enumerate(pictures):
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "PNG")
            archive.writestr(f"{index:05}.png", buffer.getvalue())
            labels.append([f"{index:05}.png", index % 10])
        archive.writestr("dataset.json", json.dumps({"labels": labels}))


def shortened(load: Callable) -> Callable:
    """`load_config` with a network and a training that take a second."""

    def short(name, overrides=()):
        if isinstance(overrides, dict):
            overrides = {**overrides, "train.steps": 2, "train.batch_size": 4, "model.base_channels": 8}
            return load(name, overrides)
        return load(name, [*overrides, *FAST, "model.base_channels=8", "model.channel_mult=[1,2]"])

    return short
