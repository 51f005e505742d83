"""Pictures while they are denoised."""

import pytest
import torch

from sddpm.app.drawing import draw
from sddpm.app.settings import Settings
from sddpm.data import to_uint8, unit_to_uint8
from tests.helpers.small_pipeline import pipeline_of


def test_reports_are_what_the_solver_goes_on_with():
    pipeline = pipeline_of(num_classes=2, names=["shirt", "boot"])
    seen, expected = [], []
    settings = Settings("tiny", seeds="3-4", label="1", steps=3)
    last = draw(pipeline, settings, seen.append)
    images = pipeline(
        seeds=[3, 4], class_labels=1, num_inference_steps=3, output_type="pt", progress=False, callback=expected.append
    ).images
    assert [(drawing.done, drawing.total) for drawing in seen] == [(1, 3), (2, 3), (3, 3)]
    assert all(torch.equal(a.pictures, to_uint8(b.x_prev)) for a, b in zip(seen, expected, strict=True))
    assert torch.equal(last.pictures, unit_to_uint8(torch.as_tensor(images)))
    assert last.captions == ["seed 3, boot", "seed 4, boot"] and last.rows is None


def test_batches_follow_each_other():
    seen = []
    last = draw(pipeline_of(), Settings("tiny", seeds="0-16", steps=2), seen.append)
    assert [drawing.done for drawing in seen] == [1, 2, 3, 4] and last.total == 4
    assert (seen[1].pictures[16] == 128).all() and not (seen[2].pictures[16] == 128).all()
    assert torch.equal(seen[2].pictures[:16], last.pictures[:16])


def test_what_a_report_raises_ends_the_work():
    class Enough(Exception):
        pass

    def report(drawing):
        if drawing.done == 2:
            raise Enough

    pipeline = pipeline_of()
    with pytest.raises(Enough):
        draw(pipeline, Settings("tiny", steps=1000, thresholds="0.5"), report)
    assert {neuron.v_threshold for neuron in pipeline.unet.neurons().values()} == {1.0}
