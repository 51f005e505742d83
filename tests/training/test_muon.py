"""Muon: against its polynomial on singular values, torch's own on matrices, and itself after a resumption."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sddpm.training import load_config, train
from sddpm.training.checkpoint import TENSOR_FILES, checkpoint_path
from sddpm.training.config import TrainConfig
from sddpm.training.muon import MOMENTUM, Muon, orthogonalized
from sddpm.training.optim import make_optimizer, parameter_groups, set_learning_rate
from sddpm.training.state import build_model


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (12, 12), (1, 9)])
def test_singular_vectors_stay_and_values_go_through_the_polynomial(shape):
    matrix = random(*shape)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    s = s / matrix.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    found = orthogonalized(matrix)
    torch.testing.assert_close(found, u @ torch.diag(s) @ vh, rtol=1e-9, atol=1e-9)
    assert s.min() > 0.6 and s.max() < 1.3


@pytest.mark.parametrize("shape", [(16, 40), (40, 16)])
def test_a_wide_or_tall_update_is_orthogonal(shape):
    update = orthogonalized(random(*shape))
    gram = update @ update.T if shape[0] < shape[1] else update.T @ update
    assert (torch.linalg.eigvalsh(gram).sqrt() - 1).abs().max() < 0.35
    assert (gram - torch.eye(16, dtype=gram.dtype)).abs().mean() < 0.1


def test_a_gradient_of_zeros_moves_nothing():
    assert torch.equal(orthogonalized(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_torch_s_own_on_matrices():
    """Which computes the direction in bfloat16, 8 bits: what entries move by differs by a few per cent of its size."""
    start, lr, decay = random(24, 60, dtype=torch.float32), 0.01, 0.1
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([ours], lr, decay)
    torchs = torch.optim.Muon([theirs], lr=lr, weight_decay=decay, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw")
    for seed in range(1, 6):
        ours.grad = random(24, 60, seed=seed, dtype=torch.float32)
        theirs.grad = ours.grad.clone()
        mine.step()
        torchs.step()
    torch.testing.assert_close(mine.state[ours]["momentum_buffer"], torchs.state[theirs]["momentum_buffer"])
    moved = theirs.detach() - start
    assert (ours - theirs).norm() < 0.02 * moved.norm()


def test_a_convolution_is_the_matrix_of_its_filters_in_any_memory_layout():
    start, gradient = random(8, 4, 3, 3), random(8, 4, 3, 3, seed=1)
    matrix, convolution = nn.Parameter(start.flatten(1).clone()), nn.Parameter(start.clone())
    last = nn.Parameter(start.clone(memory_format=torch.channels_last))
    for parameter in (matrix, convolution, last):
        parameter.grad = gradient.reshape(parameter.shape)
        Muon([parameter], 0.1).step()
        torch.testing.assert_close(parameter.reshape(8, 36), matrix, rtol=1e-12, atol=1e-14)
    root_mean_square = (matrix - start.flatten(1)).square().mean().sqrt() / 0.1
    assert 0.1 < root_mean_square < 0.25  # AdamW's is 0.2 lr in practice (arXiv 2502.16982)


def test_which_parameters_are_whose():
    size = ("model.base_channels=8", "model.channel_mult=[1,2]", "model.num_res_blocks=1")
    config = load_config("digits", ["train.optimizer=muon"])
    for kind in ("spiking", "ann", "quantized"):
        model = build_model(load_config("digits", [*size, f"model.kind={kind}"]), 1)
        groups = parameter_groups(model, config.train)
        names = {parameter: name for name, parameter in model.named_parameters()}
        given = [names[parameter] for group in groups for parameter in group["params"]]
        assert sorted(given) == sorted(names.values())
        (muon,) = (group["params"] for group in groups if group.get("name") == "muon")
        assert {parameter.ndim for parameter in muon} == {4}
        rest = {name for name, p in model.named_parameters() if p.ndim == 4} - {names[p] for p in muon}
        edges = {"spiking": 3, "quantized": 2, "ann": 2}[kind]  # the readout of the spiking tail is two convolutions
        assert len(rest) == edges and len(muon) > 5
        optimizer = make_optimizer(groups, config.train, torch.device("cpu"))
        set_learning_rate(optimizer, 0.125)
        assert {group["lr"] for group in optimizer.param_groups} == {0.125}


def test_the_other_parameters_move_as_with_adamw():
    config = TrainConfig(optimizer="muon", lr=0.1, weight_decay=0.01)
    vectors = [nn.Parameter(random(5)) for _ in range(2)]
    groups = [{"params": [vectors[0]]}, {"params": [nn.Parameter(random(2, 3))], "name": "muon"}]
    both = make_optimizer(groups, config, torch.device("cpu"))
    alone = make_optimizer([vectors[1]], config.model_copy(update={"optimizer": "adamw"}), torch.device("cpu"))
    for vector, optimizer in zip(vectors, (both, alone), strict=True):
        vector.grad = random(5, seed=3)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert vector.grad is None
    assert torch.equal(*vectors)


def test_a_resumed_run_ends_with_the_same_bits(tiny, tmp_path):
    settings = ["train.optimizer=muon", "train.weight_decay=0.01", "train.assign_noise=true", "train.accumulation=2"]
    train(tiny(*settings), tmp_path / "whole", progress=False)
    train(tiny(*settings, "train.steps=3"), tmp_path / "halves", progress=False)
    train(tiny(*settings), tmp_path / "halves", resume=True, progress=False)
    files = [[load_file(checkpoint_path(tmp_path / run, 6) / name) for name in TENSOR_FILES]
             for run in ("whole", "halves")]  # fmt: skip
    assert any(name.startswith("momentum_buffer/") for name in files[0][2])
    assert any(name.startswith("exp_avg/") for name in files[0][2])
    for whole, halves in zip(*files, strict=True):
        assert whole.keys() == halves.keys()
        assert all(torch.equal(value, halves[name]) for name, value in whole.items())
