"""Recording and replaying: which calls are recorded, and that results are those of the function."""

import logging

import pytest
import torch

from sddpm.inference import compile_model
from sddpm.inference.graphs import Graphed, Recording


class Recorder:
    """Stands in for CUDA: replays a function on fixed inputs into a fixed output, and counts."""

    def __init__(self):
        self.recorded, self.replayed = 0, 0

    def __call__(self, function, inputs):
        self.recorded += 1
        static = tuple(x.clone() for x in inputs)
        output = function(*static)

        def replay():
            self.replayed += 1
            output.copy_(function(*static))

        return Recording(static, output, replay)


@pytest.fixture
def recorder():
    return Recorder()


def test_results_are_those_of_the_function_and_stay(recorder):
    graphed = Graphed(lambda x, y: x * 2 + y, recorder=recorder)
    inputs = [(torch.randn(3, 4), torch.randn(4)) for _ in range(5)]
    outputs = [graphed(*pair) for pair in inputs]
    assert (recorder.recorded, recorder.replayed) == (1, 4)
    for (x, y), out in zip(inputs, outputs, strict=True):
        assert torch.equal(out, x * 2 + y)


def test_recorded_at_the_second_call_in_a_row(recorder):
    graphed = Graphed(torch.square, recorder=recorder)
    for count in (1, 2, 1, 2):
        graphed(torch.zeros(count))
    assert recorder.recorded == 0
    graphed(torch.zeros(2))
    assert recorder.recorded == 1
    graphed(torch.zeros(1))
    graphed(torch.zeros(2))
    assert (recorder.recorded, recorder.replayed) == (1, 2)


@pytest.mark.parametrize(
    "other",
    [
        lambda x: (x.double(), 1.0),
        lambda x: (x[:2], 1.0),
        lambda x: (x.t().contiguous().t(), 1.0),
        lambda x: (x, 2.0),
    ],
)
def test_what_makes_another_recording(recorder, other):
    scale = 1.0
    graphed = Graphed(lambda x: x * scale, recorder=recorder)
    x = torch.randn(3, 3)
    for _ in range(2):
        assert torch.equal(graphed(x, key=scale), x)
    y, scale = other(x)
    for _ in range(2):
        assert torch.equal(graphed(y, key=scale), y * scale)
    assert recorder.recorded == 2
    scale = 1.0
    assert torch.equal(graphed(x, key=scale), x) and recorder.recorded == 2


def test_the_latest_used_are_kept(recorder):
    graphed = Graphed(torch.square, limit=2, recorder=recorder)
    for count in (1, 1, 2, 2, 1, 3, 3):  # 3 takes the place of 2
        graphed(torch.zeros(count))
    assert recorder.recorded == 3
    graphed(torch.zeros(1))
    assert recorder.recorded == 3
    graphed(torch.zeros(2))
    graphed(torch.zeros(2))
    assert recorder.recorded == 4


def test_what_cannot_be_recorded_is_called(caplog):
    def refuse(_function, _inputs):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    graphed = Graphed(torch.square, recorder=refuse)
    with caplog.at_level(logging.INFO, logger="sddpm"):
        for _ in range(4):
            assert graphed(torch.full((2,), 3.0)).tolist() == [9, 9]
    assert len(caplog.records) == 1 and "not permitted when stream is capturing" in caplog.text


@pytest.mark.cuda
def test_a_network_on_a_gpu(make_model):
    """The compiled network replays the same numbers, at every diffusion step, batch size and threshold."""
    model = make_model().float().cuda()
    compiled, plain = compile_model(model), compile_model(model)
    plain.refresh().graphs = None
    x = torch.randn(3, 1, 8, 8, device="cuda")
    for t in (0, 500, 999, 500):
        assert torch.equal(compiled(x, t).sample, plain(x, t).sample)
    for threshold in (0.9, 0.9, 0.9, None):
        with compiled.at_threshold(threshold):
            assert torch.equal(compiled(x, 7).sample, plain(x, 7).sample)
    for count in (1, 1, 2, 2, 3):
        assert torch.equal(compiled(x[:count], 7).sample, plain(x[:count], 7).sample)
    model.middle[0].conv1.weight.data.mul_(2)
    compiled.refresh()
    plain.refresh().graphs = None
    for _ in range(3):
        assert torch.equal(compiled(x, 7).sample, plain(x, 7).sample)
