"""One way to refuse a name, and one to hash a file."""

import hashlib

import pytest

from sddpm.choices import check_choice, choice_from_environment, did_you_mean, nearest
from sddpm.errors import UserError
from sddpm.hashes import sha256_of, short_hash


def test_an_unknown_name_is_refused_with_all_that_are_known():
    check_choice("filter", "box", ("box", "bilinear"))
    with pytest.raises(UserError, match=r"^unknown filter 'lanczos': choose one of box, bilinear$"):
        check_choice("filter", "lanczos", {"box": 1, "bilinear": 2})
    with pytest.raises(UserError, match="unknown filter \\['box'\\]"):  # a list is no key of a dictionary
        check_choice("filter", ["box"], {"box": 1})


def test_the_nearest_name_is_suggested_in_its_own_spelling():
    assert nearest("fashion_mnst", ("mnist", "fashion-mnist"), spelling=lambda name: name.replace("_", "-")) == (
        "fashion-mnist"
    )
    assert nearest("xyz", ("mnist", "fashion-mnist")) is None
    assert did_you_mean("mnits", ("mnist", "digits"), "known are two") == "did you mean mnist?"
    assert did_you_mean("xyz", ("mnist", "digits"), "known are two") == "known are two"


def test_an_environment_variable_is_auto_unless_it_is_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SDDPM_TEST", raising=False)
    assert choice_from_environment("SDDPM_TEST", ("auto", "slow")) == "auto"
    monkeypatch.setenv("SDDPM_TEST", "slow")
    assert choice_from_environment("SDDPM_TEST", ("auto", "slow")) == "slow"
    monkeypatch.setenv("SDDPM_TEST", "fast")
    with pytest.raises(UserError, match="SDDPM_TEST must be one of auto, slow, got 'fast'"):
        choice_from_environment("SDDPM_TEST", ("auto", "slow"))


def test_hashes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert short_hash("abc") == hashlib.sha256(b"abc").hexdigest()[:24] == "ba7816bf8f01cfea414140de"
    with pytest.raises(UserError, match="cannot read"):
        sha256_of(tmp_path / "b")
