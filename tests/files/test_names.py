"""Folders named after classes: whatever a model's classes are called, they lie in the folder that was asked for."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sddpm.files.names import folder_names


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["Ankle boot", "7", "été"], ["Ankle boot", "7", "été"]),
        (["T-shirt/top", "T-shirt-top"], ["T-shirt-top", "T-shirt-top-1"]),
        (["..", "c0"], ["class-0", "c0"]),
        (["../x", "/etc"], ["--x", "-etc"]),
        (["", " ", "."], ["class-0", "class-1", "class-2"]),
        (["a\\b", "C:", "a\nb", "\0"], ["a-b", "C-", "a-b-2", "class-3"]),
        (["cat", "Cat"], ["cat", "Cat-1"]),
        ([".git"], ["-git"]),
        (["x" * 300], ["x" * 100]),
    ],
)
def test_names(names, folders):
    assert folder_names(names) == folders


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=())), max_size=6))
def test_any_names_become_as_many_different_folders_in_one_place(names):
    folders = folder_names(names)
    assert len({folder.casefold() for folder in folders}) == len(names)
    for folder in folders:
        assert Path("out", folder).resolve().parent == Path("out").resolve()
        assert folder and 0 < len(folder.encode()) <= 255 and "\0" not in folder
