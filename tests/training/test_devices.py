"""A training step on a GPU: the host never waits for it, and a run gives what it gives on the CPU."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sddpm.errors import UserError
from sddpm.training import read_metrics, train
from sddpm.training.batches import Batch
from sddpm.training.checkpoint import newest_checkpoint
from sddpm.training.objective import make_loss
from sddpm.training.processes import make_accelerator
from sddpm.training.state import build_model, make_state
from sddpm.training.step import backward, update

aten = torch.ops.aten


class Waits(TorchDispatchMode):
    """Notes what would keep the host waiting for a device, here "meta": copies that block, and values read back."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is aten._to_copy.default:
            source, target, blocks = args[0], kwargs.get("device", args[0].device), not kwargs.get("non_blocking")
        elif func is aten.copy_.default:
            source, target, blocks = args[1], args[0].device, not (args[2:] or [kwargs.get("non_blocking")])[0]
        else:
            if func in (aten._local_scalar_dense.default, aten.nonzero.default, aten.is_nonzero.default):
                self.found += [str(func)] if args[0].device.type == "meta" else []
            return func(*args, **kwargs)
        if source.device.type != torch.device(target).type and (blocks or source.device.type == "meta"):
            self.found.append(f"{func} from {source.device} to {target}, {list(source.shape)} {source.dtype}")
        return func(*args, **kwargs)


class OnMeta:
    """What `backward` needs of an Accelerator."""

    device = torch.device("meta")

    def backward(self, loss):
        loss.backward()


def batch_of(config, size=4) -> Batch:
    shape = (size, 1, config.data.image_size, config.data.image_size)
    return Batch(torch.zeros(shape, dtype=torch.uint8), torch.randn(shape), torch.arange(size))


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("train.precision=bf16", "train.optimizer=adamw"),
        ("diffusion.prediction_type=v_prediction", "diffusion.min_snr_gamma=5"),
        ("train.rate_penalty=0.1",),
        ("model.neuron=plif", "model.temporal_modulation=true"),
        ("model.pure=true", "model.patch_size=2"),
    ],
    ids=lambda overrides: " ".join(overrides) or "as it is",
)
def test_nothing_in_a_step_waits_for_the_device(tiny, overrides, monkeypatch):
    monkeypatch.setattr(torch.nn.utils.clip_grad, "_device_has_foreach_support", lambda _device: True)  # as on GPUs
    config = tiny(*overrides)
    state = make_state(build_model(config, channels=1), config, OnMeta.device)
    loss_of, batch = make_loss(config, OnMeta.device), batch_of(config)
    for _ in range(2):
        with Waits() as waits:
            sums = backward(state.model, batch, loss_of, OnMeta(), config.train)
            update(state, config.train)
        assert not waits.found, "\n".join(waits.found)
    assert {value.device.type for value in sums} == {"meta"} and state.step == 2


def test_waiting_would_be_noticed():
    with Waits() as waits:
        torch.ones(3).to("meta")
        torch.empty(3, device="meta").copy_(torch.ones(3))
        assert len(waits.found) == 2
        torch.ones(3).to("meta", non_blocking=True)
        torch.empty(3, device="meta").copy_(torch.ones(3), non_blocking=True)
        torch.ones(3).tolist()
        assert len(waits.found) == 2
        with pytest.raises(RuntimeError):
            torch.empty((), device="meta").item()
        assert len(waits.found) == 3


def test_compiled_networks_cannot_be_watched(tiny):
    with pytest.raises(UserError, match="cannot measure firing rates"):
        tiny("train.compile=true", "train.rate_penalty=0.1")


@pytest.mark.slow
def test_a_compiled_run_learns_the_same(tmp_path, tiny):
    losses = []
    for compiled in ("false", "true"):
        train(tiny(f"train.compile={compiled}"), tmp_path / compiled, progress=False, device="cpu")
        losses.append([row["loss"] for row in read_metrics(tmp_path / compiled)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_nothing_in_a_step_waits_for_a_gpu(tiny, precision):
    config = tiny(f"train.precision={precision}", "train.optimizer=adamw", "train.rate_penalty=0.1")
    accelerator = make_accelerator("cuda", precision)
    state = make_state(build_model(config, channels=1), config, accelerator.device)
    prepared, loss_of = accelerator.prepare_model(state.model), make_loss(config, accelerator.device)
    batch = batch_of(config).pin()
    try:
        for step in range(5):
            if step == 2:  # kernels are compiled by then, and the optimiser has its moments
                torch.cuda.set_sync_debug_mode("error")
            backward(prepared, batch, loss_of, accelerator, config.train)
            update(state, config.train)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@pytest.mark.parametrize("settings", [(), ("train.precision=bf16",), ("train.compile=true",)])
def test_a_run_on_a_gpu_learns_what_it_learns_on_the_cpu(tmp_path, tiny, settings):
    losses = []
    for device, more in (("cpu", ()), ("cuda", settings)):
        train(tiny(*more, "train.steps=20"), tmp_path / device, progress=False, device=device)
        losses.append([row["loss"] for row in read_metrics(tmp_path / device)])
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


@pytest.mark.cuda
def test_a_run_goes_on_on_a_gpu(tmp_path, tiny):
    train(tiny("train.steps=3"), tmp_path / "run", progress=False, device="cpu")
    train(tiny("train.steps=6"), tmp_path / "run", progress=False, device="cuda", resume=True)
    assert newest_checkpoint(tmp_path / "run")[1]["step"] == 6
