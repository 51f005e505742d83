"""The biases that a compiled network keeps for the diffusion steps and classes that it has seen."""

import torch

from sddpm.inference import time
from sddpm.inference.compiled import compile_model


@torch.no_grad()
def test_biases_are_kept_up_to_a_number_of_bytes(make_model, monkeypatch):
    model = make_model().float().eval()
    x = torch.randn(1, model.config["in_channels"], *2 * [model.config["sample_size"]])

    def known(most_bytes, steps):
        monkeypatch.setattr(time, "MOST_BYTES", most_bytes)
        compiled = compile_model(model)
        network = compiled.refresh()
        return [compiled(x, t).sample for t in steps], network.time_biases

    everything, biases = known(2**28, [7, 3, 5, 7, 9])
    assert list(biases.known) == [(3, None), (5, None), (7, None), (9, None)]
    (size,) = {sum(part.nbytes for part in parts) for parts in biases.known.values()}
    some, biases = known(2 * size, [7, 3, 5, 7, 9])
    assert list(biases.known) == [(7, None), (9, None)]
    assert all(torch.equal(a, b) for a, b in zip(everything, some, strict=True))
    assert list(known(0, [7, 3])[1].known) == [(3, None)]
