"""Spiking self-attention: against einsum, in both orders, and counted spike by spike."""

import logging

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sddpm.energy import counting
from sddpm.energy.coverage import macs_outside_layers
from sddpm.energy.fanout import product_operations
from sddpm.errors import UserError
from sddpm.inference.engine import Engines
from sddpm.models import SpikingUNet2DModel
from sddpm.models.attention import SpikeProduct, SpikingSelfAttention
from sddpm.models.early_exit import EarlyExit
from sddpm.models.layers import make_conv
from sddpm.models.macs import layer_macs
from sddpm.neurons import Dynamics, SpikingNeuron

SMALL = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "base_channels": 8, "channel_mult": (1, 2)}


def spikes(*shape, rate=0.3):
    """Queries, keys and values."""
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(shape, generator=generator) < rate).float() for _ in range(3)]


def by_einsum(q, k, v, head):
    """softmax-free attention as Spikformer writes it: (Q K^T) V, tokens n and m, channels d of head h."""
    q, k, v = (x.double().flatten(3).unflatten(2, (-1, head)) for x in (q, k, v))
    weights = torch.einsum("tbhdn,tbhdm->tbhnm", q, k)
    return torch.einsum("tbhnm,tbhdm->tbhdn", weights, v) * (8 / q.shape[-1])


@pytest.mark.parametrize(("channels", "head", "size"), [(64, 32, 8), (48, 16, 4), (8, 8, 4), (96, 32, 4), (32, 32, 5)])
def test_the_product_is_einsums_in_either_order(channels, head, size):
    q, k, v = spikes(2, 3, channels, size, size)
    product = SpikeProduct(channels)
    assert product.head_channels == head
    expected = by_einsum(q, k, v, head).flatten(2, 3).unflatten(3, (size, size))
    for order in (False, True):  # the sums are whole numbers: not a bit may differ before the scale
        assert torch.equal(product.attend(q.double(), k.double(), v.double(), order), expected)
    torch.testing.assert_close(product(q, k, v).double(), expected, rtol=1e-6, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(product(q.bfloat16(), k.bfloat16(), v.bfloat16()), product(q, k, v))


def test_the_cheaper_order_is_taken():
    """By PyTorch's own count of floating-point operations."""
    for channels, size in ((64, 8), (32, 4), (32, 5), (32, 6), (8, 3), (8, 2)):
        x, product = torch.zeros(1, 1, channels, size, size), SpikeProduct(channels)
        flops = []
        for order in (True, False):
            with FlopCounterMode(display=False) as counter:
                product.attend(x, x, x, order)
            flops.append(counter.get_total_flops())
        with FlopCounterMode(display=False) as counter:
            product(x, x, x)
        assert counter.get_total_flops() == min(flops) == 2 * product.macs(channels, size * size)


@pytest.mark.parametrize(("channels", "size"), [(64, 8), (32, 4)])  # both orders
def test_accumulates_are_counted_spike_by_spike(channels, size):
    """By hand: go through the loops of the two products, and count where a spike really adds something."""
    q, k, v = spikes(1, 1, channels, size, size, rate=0.2)
    product, head = SpikeProduct(channels), 32
    flat = [x[0, 0].flatten(1).numpy().astype(bool).reshape(-1, head, size * size) for x in (q, k, v)]
    count = 0
    for q_h, k_h, v_h in zip(*flat, strict=True):
        positions = range(size * size)
        if head < size * size:
            count += sum(int((v_h[d] & k_h[c]).sum()) for d in range(head) for c in range(head))
            count += int(q_h.sum()) * head
        else:
            count += sum(int((q_h[:, n] & k_h[:, m]).sum()) for n in positions for m in positions)
            count += int(v_h.sum()) * size * size
    assert product_operations(product, q, k, v) == [count]


def attention(channels=16, T=3):
    torch.manual_seed(0)
    return SpikingSelfAttention(channels, make_conv, lambda: SpikingNeuron(Dynamics()))


def test_fresh_attention_is_the_identity_and_learns():
    x = torch.randn(3, 2, 16, 4, 4)
    block = attention().train()
    assert torch.equal(block(x), x)
    torch.nn.init.ones_(block.norm2.weight)
    assert not torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in block.named_parameters() if "bias" not in n)


@torch.no_grad()
def test_the_block_is_spikformers():
    """Of spikingjelly's neurons and plain layers, token by token."""
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    block, x = attention(32).double().eval(), torch.randn(3, 2, 32, 4, 4, dtype=torch.float64)
    for norm in (block.norm1, block.norm2):
        torch.nn.init.normal_(norm.weight, 1.0, 0.3)
        torch.nn.init.normal_(norm.bias, 0.5, 0.3)

    def fire(x):
        return neuron.IFNode(step_mode="m", v_reset=0.0)(x)

    def norm(layer, x):
        scale = layer.weight / (layer.running_var + layer.eps).sqrt()
        return (x - layer.running_mean) * scale + layer.bias

    tokens = x.flatten(3).transpose(2, 3)  # [T, B, N, C]
    s = fire(tokens)
    qkv = [
        fire(part) for part in norm(block.norm1, s @ block.qkv.weight[:, :, 0, 0].T + block.qkv.bias).chunk(3, dim=-1)
    ]
    attended = (qkv[0] @ qkv[1].transpose(-1, -2)) @ qkv[2] * 0.5  # 8 / 16 positions; one head
    out = norm(block.norm2, fire(attended) @ block.projection.weight[:, :, 0, 0].T + block.projection.bias)
    torch.testing.assert_close(block(x), (tokens + out).transpose(2, 3).unflatten(3, (4, 4)))
    assert 0.05 < fire(attended).mean() < 0.95 and 0.05 < qkv[0].mean() < 0.95  # or nothing would have been compared


def make(**config):
    torch.manual_seed(0)
    model = SpikingUNet2DModel(**SMALL, num_res_blocks=1, T=2, **config)
    torch.nn.init.xavier_uniform_(model.readout.conv.weight)
    for name, parameter in model.named_parameters():
        if "norm" in name and name.endswith("bias"):
            torch.nn.init.constant_(parameter, 0.5)  # or an untrained network would hardly fire
    return model.eval()


@torch.no_grad()
def test_the_network_attends_where_it_is_told_to():
    model = make(attention_resolutions=(4,))
    for name, parameter in model.named_parameters():
        if "attention.norm2" in name:
            parameter.zero_()
    where = {name.rpartition(".attention")[0] for name, m in model.named_modules() if isinstance(m, SpikeProduct)}
    assert where == {"down.1.blocks.0", "up.0.blocks.0", "up.0.blocks.1"}
    plain = make()
    renamed = {name.replace(".block.", "."): value for name, value in model.state_dict().items()}
    plain.load_state_dict({name: value for name, value in renamed.items() if ".attention." not in name})
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(model(x, 5).sample, plain(x, 5).sample)  # before it is trained
    for name, parameter in model.named_parameters():
        if name.endswith("attention.norm2.weight"):
            parameter.fill_(1.0)
    assert not torch.equal(model(x, 5).sample, plain(x, 5).sample)
    torch.testing.assert_close(EarlyExit(model, 0.0)(x, 5).sample, model(x, 5).sample)
    with pytest.raises(UserError, match="attention_resolutions names 16; the levels of this network are 8, 4 pixels"):
        make(attention_resolutions=(16,))


@torch.no_grad()
def test_the_account_charges_products_as_accumulates():
    model = make(attention_resolutions=(8, 4))
    seen, macs = {}, layer_macs(model)
    assert macs_outside_layers(model) == 0  # PyTorch's count of all, less that of the layers
    for name, module in model.named_modules():
        if isinstance(module, SpikeProduct):
            module.register_forward_hook(lambda m, inputs, _, name=name: seen.update({name: (m, inputs)}))
    with counting(model) as counter:
        model(torch.randn(2, 1, 8, 8), 5)
    products = {layer.name: layer for layer in counter.take() if layer.kind == "product"}
    assert products.keys() == seen.keys() and len(products) == 6
    for name, layer in products.items():
        module, inputs = seen[name]
        assert layer.binary and layer.mac == 0 and layer.ac == sum(product_operations(module, *inputs))
        assert layer.macs == macs[name]
        assert 0 < layer.ac < layer.dense_macs


def test_the_compiled_engine_steps_aside(caplog):
    with caplog.at_level(logging.WARNING):
        assert Engines().resolve(make(attention_resolutions=(4,)), "auto") == "eager"
    assert "sampling without compiling the model: down.1.blocks.0 is a AttendedBlock" in caplog.text


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True])
def test_all_other_initial_weights_are_those_without_attention(training):
    """At an equal seed; so that the two networks answer alike, as fresh attention is the identity."""
    networks = []
    for resolutions in ((), (8,), (4, 8)):
        torch.manual_seed(3)
        networks.append(SpikingUNet2DModel(**SMALL, attention_resolutions=resolutions).train(training))
    plain = networks[0].state_dict()
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([10, 600])
    answer = networks[0](x, t).sample
    for network in networks[1:]:
        weights = network.state_dict()
        without = {name.replace(".block.", "."): w for name, w in weights.items() if ".attention." not in name}
        assert without.keys() == plain.keys()
        assert all(torch.equal(plain[name], without[name]) for name, _ in networks[0].named_parameters())
        assert torch.equal(network(x, t).sample, answer)
        drawn = [w for name, w in weights.items() if name.endswith("qkv.weight")]
        assert len({w.sum().item() for w in drawn}) == len(drawn) == 5 * len(network.config["attention_resolutions"])
