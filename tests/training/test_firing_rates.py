"""The firing-rate penalty: its value by hand, its gradient, and that training under it fires less."""

import pytest
import torch

from sddpm.errors import UserError
from sddpm.training import read_metrics, train
from sddpm.training.batches import Batch
from sddpm.training.firing_rates import rate_targets, record_rates
from sddpm.training.objective import make_loss
from sddpm.training.state import build_model


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return Batch(
        torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=generator),
        torch.randn(6, 1, 8, 8, generator=generator),
        torch.tensor([0, 1, 10, 500, 900, 999]),
    )


def spikes_by_hand(model, batch):
    spikes = {}
    for name, neuron in model.neurons().items():
        neuron.register_forward_hook(lambda _m, _i, out, name=name: spikes.__setitem__(name, out.detach().double()))
    return spikes


def loss_and_gradients(config, model, batch):
    model.zero_grad()
    loss = make_loss(config, torch.device("cpu"))(model, batch)
    loss.total.backward()
    return loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_value_by_hand(tiny, batch):
    config = tiny("train.rate_penalty=3", "train.rate_target={'down.*': 0.05, 'up.*': 0.01, 'up.1.*': 1}")
    model = build_model(config, 1)
    spikes = spikes_by_hand(model, batch)
    loss, _ = loss_and_gradients(config, model, batch)
    rates = {name: s.mean().item() for name, s in spikes.items()}
    targets = {n: 0.05 if n.startswith("down") else 1 if n.startswith("up.1") else 0.01
               for n in rates if n.startswith(("down", "up"))}  # fmt: skip
    price = sum(max(0, rates[name] - target) ** 2 for name, target in targets.items()) / len(targets)
    assert price > 0
    assert (loss.total - loss.error).item() == pytest.approx(3 * price, rel=1e-4)
    everything = torch.cat([s.flatten() for s in spikes.values()])
    assert loss.firing_rate.item() == pytest.approx(everything.mean().item(), rel=1e-5)


def test_rates_below_the_target_cost_nothing(tiny, batch):
    model = build_model(tiny(), 1)
    without, gradients = loss_and_gradients(tiny(), model, batch)
    satisfied, same = loss_and_gradients(tiny("train.rate_penalty=1", "train.rate_target=1"), model, batch)
    assert torch.equal(satisfied.total, without.total) and all(torch.equal(same[n], gradients[n]) for n in gradients)
    excessive, others = loss_and_gradients(tiny("train.rate_penalty=1", "train.rate_target=0"), model, batch)
    assert torch.equal(excessive.error, without.error) and excessive.total > without.total
    assert any(not torch.equal(others[n], gradients[n]) for n in gradients)
    assert without.firing_rate == 0 < satisfied.firing_rate


def test_hooks_are_gone_afterwards(tiny):
    model = build_model(tiny(), 1)
    with pytest.raises(ZeroDivisionError), record_rates(model):
        _ = 1 / 0
    assert not any(neuron._forward_hooks for neuron in model.neurons().values())


def test_training_under_the_penalty_fires_less(tmp_path, tiny):
    options = ["train.steps=40", "train.lr=5e-3", "train.log_every=10", "train.checkpoint_every=40"]
    rates = {}
    for target in (0.02, 1.0):
        run = tmp_path / str(target)
        train(tiny(*options, "train.rate_penalty=20", f"train.rate_target={target}"), run, progress=False)
        rates[target] = [row["firing_rate"] for row in read_metrics(run)]
    assert rates[0.02][-1] < 0.7 * rates[1.0][-1]
    assert rates[0.02][0] == pytest.approx(rates[1.0][0], rel=0.5)  # they start from the same network


def test_no_penalty_logs_no_rate(tmp_path, tiny):
    train(tiny("train.steps=1"), tmp_path / "run", progress=False)
    assert "firing_rate" not in read_metrics(tmp_path / "run")[0]


def test_a_pattern_of_no_layer_is_refused_before_anything_is_written(tmp_path, tiny):
    config = tiny("train.rate_penalty=1", "train.rate_target={'sideways.*': 0.1}")
    with pytest.raises(UserError, match=r"no neuron layer matches 'sideways.\*'"):
        train(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_model_without_neurons_is_refused():
    with pytest.raises(UserError, match="no spiking neurons"):
        rate_targets(torch.nn.Linear(2, 2), 0.1)
