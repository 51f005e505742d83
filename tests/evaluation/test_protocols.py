import pytest

from sddpm.errors import UserError
from sddpm.evaluation.metrics import METRICS
from sddpm.evaluation.protocols import PROTOCOLS, Conditions, departures, find_protocol

SDDPM, FSDDIM = PROTOCOLS["sddpm"], PROTOCOLS["fsddim"]


def test_published_conditions_depart_in_nothing():
    assert departures(SDDPM, METRICS["fid"], Conditions(50_000, "train", "pytorch-fid", 2048)) == []
    assert departures(FSDDIM, METRICS["fid"], Conditions(10_000, "test", "clean-fid", 2048)) == []
    # FAD uses no Inception: what is said of that does not matter.
    assert departures(FSDDIM, METRICS["fad"], Conditions(10_000, "test", "pytorch-fid", 64, None, False)) == []


def test_every_departure_is_told():
    made = Conditions(
        2_000, "test", "clean-fid", 768, reference_limit=500, published_inception=False, published_fad=False,
        other_weights=True, skipped=3,
    )  # fmt: skip
    assert departures(SDDPM, METRICS["fid"], made) == [
        "2,000 samples instead of 50,000",
        "test split instead of train",
        "500 reference images instead of all",
        "768 features instead of 2048",
        "clean-fid preprocessing instead of pytorch-fid",
        "Inception weights from another file than the published",
        "reference statistics made with other weights",
        "3 damaged images left out",
    ]
    assert departures(SDDPM, METRICS["is"], made) == [
        "2,000 samples instead of 50,000",
        "clean-fid preprocessing instead of pytorch-fid",
        "Inception weights from another file than the published",
        "3 damaged images left out",
    ]
    assert "own reference statistics instead of the published" in departures(FSDDIM, METRICS["fad"], made)


def test_departures_of_one_metric():
    is_made = Conditions(50_000, "train", "pytorch-fid", 2048, splits=5, neighbours=None, crops=("ddim64", "center148"))
    assert departures(SDDPM, METRICS["is"], is_made) == ["5 splits instead of 10"]
    assert departures(SDDPM, METRICS["fid"], is_made) == ["reference cropped by ddim64, training images by center148"]
    # Of precision and recall the published protocol says 10,000 a side, however many samples there are.
    for sides, words in (
        ((10_000, 10_000), []),
        ((10_000, 9_000), ["10,000 samples and 9,000 reference images instead of 10,000 and 10,000"]),
    ):
        made = Conditions(20_000, "train", "pytorch-fid", 2048, neighbours=sides)
        assert departures(SDDPM, METRICS["recall"], made) == words
    sizes = Conditions(50_000, "train", "pytorch-fid", 2048, sizes=(28, 32))
    assert departures(SDDPM, METRICS["fid"], sizes) == ["reference images of 28x28 pixels, samples of 32x32"]
    one = Conditions(50_000, "train", "pytorch-fid", 2048, skipped=1)
    assert departures(SDDPM, METRICS["fid"], one) == ["1 damaged image left out"]


def test_unknown_protocol():
    with pytest.raises(UserError, match="sddpm, fsddim"):
        find_protocol("edm")
