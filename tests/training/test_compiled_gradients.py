"""torch.compile must not change the gradients. (Its loss alone looks right for long: what the gradient does not reach
stays as it was, and the rest of the network learns.)"""

import pytest
import torch

from sddpm.training import load_config
from sddpm.training.state import build_model


def gradients(kind, compiled):
    sizes = ("base_channels=32", "channel_mult=[1,2]", "patch_size=1") + (("T=2",) if kind == "spiking" else ())
    settings = [f"model.{size}" for size in (f"kind={kind}", *sizes)]
    model = build_model(load_config("cifar10_small", [*settings, "data.image_size=16"]), 3).double().train()
    model = model.to(memory_format=torch.channels_last)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # layers that start at zero hide the gradients of others
            parameter.add_(0.02 * torch.randn_like(parameter))
    x, t = torch.randn(4, 3, 16, 16, dtype=torch.float64), torch.randint(0, 1000, (4,))
    torch._dynamo.reset()
    predicted = (torch.compile(model) if compiled else model)(x, t).sample
    (predicted - x).square().mean().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ann", "quantized", "spiking"])
def test_compiled_gradients_are_the_same(kind):
    expected, found = gradients(kind, compiled=False), gradients(kind, compiled=True)
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=1e-5, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}"
        )
