"""Calls of one pipeline from several threads: each gets the pictures that it would get alone."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.helpers.small_pipeline import pipeline_of

CALLS = [{"v_threshold": None}, {"v_threshold": 0.5}, {"v_threshold": "0.9x"}, {"v_threshold": 0.7, "engine": "exact"}]


@pytest.mark.parametrize("slow", [True, False])
def test_thresholds_are_those_of_the_call(slow):
    """Slow evaluations meet for certain; a hook makes them so, and keeps the network from being compiled."""
    pipe = pipeline_of()
    before = {name: neuron.v_threshold for name, neuron in pipe.unet.neurons().items()}
    calls = [call for call in CALLS if not (slow and "engine" in call)]
    if slow:
        next(iter(pipe.unet.children())).register_forward_hook(lambda *_: time.sleep(0.02))

    def images(call):
        return pipe(seeds=[1, 2], num_inference_steps=5, output_type="np", progress=False, **call).images

    alone = [images(call) for call in calls]
    assert not np.array_equal(alone[0], alone[1])
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(images, calls * 3))
    for i, found in enumerate(together):
        assert np.array_equal(found, alone[i % len(calls)])
    assert {name: neuron.v_threshold for name, neuron in pipe.unet.neurons().items()} == before
