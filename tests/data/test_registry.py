"""Names, aliases, nearest names, splits, and the bundled digits."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sddpm.data import DATASETS, open_dataset
from sddpm.data.config import DataConfig
from sddpm.data.open import open_configured
from sddpm.errors import UserError


@pytest.mark.parametrize("name", ["digits", "Digits", "DIGITS"])
def test_names_in_any_case(name):
    assert open_dataset(name).name == "digits"


@pytest.mark.parametrize("name", ["fashion-mnist", "fashion_mnist", "FashionMNIST", "CIFAR-10", "cifar10", "MNIST"])
def test_known_names_ask_for_data_not_for_a_name(tmp_path, name):
    with pytest.raises(UserError, match="is not here: fetch it with `download=True`"):
        open_dataset(name, cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fashionmist", "did you mean fashion-mnist"),
        ("cifar", "did you mean cifar10"),
        ("mnst", "did you mean mnist"),
        ("qqqqqqqq", "The data sets are digits, mnist"),
        ("", "unknown data set"),
        ("/no/such/folder", "no such folder or zip: /no/such/folder"),
        ("missing.zip", "no such folder or zip: missing.zip"),
        ([], "no folder or zip"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(UserError, match=message):
        open_dataset(name)


def test_path_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no such folder or file"):
        open_dataset("mnist", tmp_path / "nowhere")
    with pytest.raises(UserError, match="unknown data set"):
        open_dataset("mnst", tmp_path)
    with pytest.raises(UserError, match="leave out the path"):
        open_dataset("digits", tmp_path)


@pytest.mark.parametrize(("name", "split"), [("digits", "test"), ("celeba", "test"), ("mnist", "valid")])
def test_splits_that_do_not_exist(name, split, tmp_path):
    with pytest.raises(UserError, match=f"has no split '{split}': choose train"):
        open_dataset(name, tmp_path, split=split)


def test_listing_needs_no_torch_and_every_entry_has_its_line():
    code = "import sys; from sddpm.data import DATASETS; print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]
    assert list(DATASETS) == ["digits", "mnist", "fashion-mnist", "cifar10", "celeba", "lsun", "folder"]
    assert all(20 < len(entry.help) <= 120 for entry in DATASETS.values())


def test_digits_are_those_of_uci():
    ds = open_dataset("digits")
    assert ds.images.shape == (1797, 1, 8, 8) and ds.skipped == []
    # Class counts and the first image as published with optdigits.tes.
    assert torch.bincount(ds.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    ink = [0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0, 0, 3, 15, 2, 0, 11, 8, 0, 0, 4, 12, 0, 0, 8, 8, 0]
    ink += [0, 5, 8, 0, 0, 9, 8, 0, 0, 4, 11, 0, 1, 12, 7, 0, 0, 2, 14, 5, 10, 12, 0, 0, 0, 0, 6, 13, 10, 0, 0, 0]
    assert ds.images[0].flatten().tolist() == [int(np.round(x * 255 / 16)) for x in ink]
    assert sorted(ds.images.unique().tolist()) == [int(np.round(x * 255 / 16)) for x in range(17)]


def test_digits_are_every_row_of_the_published_file():
    """md5 of the rows 'v,...,v,label' of the 1,797 digits, computed from the source file, not from our copy."""
    ds = open_dataset("digits")
    ink = torch.round(ds.images.flatten(1) * (16 / 255)).int()
    rows = "".join(
        ",".join(map(str, [*row, label])) + "\n" for row, label in zip(ink.tolist(), ds.labels.tolist(), strict=True)
    )
    assert hashlib.md5(rows.encode()).hexdigest() == "a0339c30a8a5312a1b6f9e5c719dcce5"


def test_a_config_opens_what_its_keys_say():
    """Every key but `flip`, which is the training's, is an argument of `open_dataset`."""
    keys = {"split", "image_size", "channels", "crop", "resize", "limit", "download"}
    assert set(DataConfig.model_fields) == keys | {"dataset", "path", "flip"}
    values = {"split": "train", "image_size": 6, "channels": 3, "crop": "center", "resize": "lanczos", "limit": 4}
    configured = open_configured(DataConfig(dataset="digits", flip=True, download=True, **values))
    assert torch.equal(configured.images, open_dataset("digits", **values).images)
    assert configured.images.shape == (4, 3, 6, 6)
    with pytest.raises(UserError, match="digits has no split 'test'"):
        open_configured(DataConfig(dataset="digits", split="test"))
    with pytest.raises(UserError, match="leave out the path"):
        open_configured(DataConfig(dataset="digits", path=str(Path.cwd())))
    assert len(open_configured(DataConfig(dataset="gaussian-process", limit=5))) == 5
