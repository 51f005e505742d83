"""The same seeds at several thresholds."""

import pytest
import torch

from sddpm.app.comparison import MOST_THRESHOLDS, choices, compare
from sddpm.app.settings import Settings
from sddpm.data import unit_to_uint8
from sddpm.errors import UserError
from tests.helpers.small_pipeline import pipeline_of


def test_each_row_is_a_sample_at_its_threshold():
    pipeline, seen = pipeline_of(num_classes=2), []
    settings = Settings("tiny", seeds="4,9", label="0", steps=3)
    found = compare(pipeline, settings, "0.5x,  down*=0.7  up*=0.9x , 1.5", seen.append)
    assert found.names == ["0.5x", "down*=0.7 up*=0.9x", "1.5"] and found.total == 9
    assert [each.done for each in seen] == list(range(1, 10)) and all(each.total == 9 for each in seen)
    for drawing, threshold in zip(found.drawings, ["0.5x", {"down*": 0.7, "up*": "0.9x"}, 1.5], strict=True):
        images = pipeline(
            seeds=[4, 9], class_labels=0, num_inference_steps=3, v_threshold=threshold, output_type="pt", progress=False
        ).images
        assert torch.equal(drawing.pictures, unit_to_uint8(torch.as_tensor(images)))
    assert len({drawing.pictures.numpy().tobytes() for drawing in found.drawings}) == 3
    assert found.sheet().height > 3 * 8


@pytest.mark.parametrize(
    ("thresholds", "seeds", "line"),
    [
        (" , ", "0", "give thresholds"),
        ("1x, high", "0", "a number such as 0.999"),
        ("1x, -1", "0", "positive"),
        (",".join(["1x"] * (MOST_THRESHOLDS + 1)), "0", f"compares at most {MOST_THRESHOLDS}"),
        ("1x, 2x, 3x", "0-30", "93 pictures are too many"),
        ("1x, nothing*=1", "0", "no neuron layer"),
    ],
)
def test_absurd_values(thresholds, seeds, line):
    with pytest.raises(UserError, match=line):
        compare(pipeline_of(), Settings("tiny", seeds=seeds, steps=1), thresholds)


def test_choices():
    assert choices("1x") == ["1x"] and choices("1x,,0.9 ") == ["1x", "0.9"]
