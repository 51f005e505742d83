"""`train` in one process: what it writes, resuming, refusals."""

import json
import math
from itertools import pairwise

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sddpm.errors import UserError
from sddpm.pipelines import load_pipeline
from sddpm.training import load_config, read_metrics, train
from sddpm.training import loop as loop_module
from sddpm.training import run as run_module
from sddpm.training.batches import Batch
from sddpm.training.checkpoint import TENSOR_FILES, checkpoint_path


def weights(run, step) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint: weights, average, optimiser."""
    return {f"{name}/{key}": value for name in TENSOR_FILES
            for key, value in load_file(checkpoint_path(run, step) / name).items()}  # fmt: skip


def assert_same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [key for key in a if not torch.equal(a[key], b[key])]
    assert not different, different[:5]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny):
    """A run of six steps, with samples."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    config = tiny("train.sample_every=3", "train.sample_count=4", "train.sample_steps=2", "train.tensorboard=true")
    return folder, train(config, folder, progress=False)


def test_result_and_files(finished, tiny):
    folder, result = finished
    assert (result.run_dir, result.step, result.stopped_by) == (folder, 6, "steps")
    assert 0 < result.loss < 10
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "metrics.jsonl", "loss.png", "samples", "checkpoints", "model", "tensorboard",
    }  # fmt: skip
    assert load_config(folder / "config.yaml").train.sample_steps == 2
    assert [path.name for path in sorted((folder / "samples").iterdir())] == ["step-0000003.png", "step-0000006.png"]
    with Image.open(folder / "samples" / "step-0000006.png") as grid:
        assert grid.width == grid.height == 2 * (128 + 2) + 2  # 8 x 8 images, drawn 16 times as large
    assert list((folder / "tensorboard").iterdir())


def test_metrics(finished):
    folder, result = finished
    rows = read_metrics(folder)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["lr"] for row in rows[:2]] == pytest.approx([0.001, 0.002])  # warm-up of two steps to 0.002
    assert rows[5]["epoch"] == pytest.approx(6 * 8 / 1797)
    assert rows[5]["loss"] == result.loss
    assert all(row["grad_norm"] > 0 and row["images_per_second"] > 0 for row in rows)
    assert all(a["seconds"] < b["seconds"] for a, b in pairwise(rows))


@pytest.fixture(scope="module")
def rarely_logged(tmp_path_factory, tiny):
    """The same six steps with metrics after four and six of them, a checkpoint of each, and a clock by which step n
    takes n / 2 seconds."""
    folder = tmp_path_factory.mktemp("rarely") / "run"
    clock, update = [0.0], loop_module.update

    def ticking(state, options):
        update(state, options)
        clock[0] += state.step / 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module, "update", ticking)
        patch.setattr(loop_module.Stopwatch, "seconds", property(lambda watch: clock[0]))
        settings = ("train.log_every=4", "train.checkpoint_every=1", "train.keep_checkpoints=6")
        train(tiny(*settings), folder, progress=False)
    return folder


def test_metrics_are_means_since_the_last_line(finished, rarely_logged):
    every = read_metrics(finished[0])
    first, second = read_metrics(rarely_logged)
    for key in ("loss", "grad_norm"):
        values = [row[key] for row in every]
        assert [first[key], second[key]] == pytest.approx([sum(values[:4]) / 4, sum(values[4:]) / 2], rel=1e-5)


def test_images_per_second_are_those_since_the_last_line(rarely_logged):
    first, second = read_metrics(rarely_logged)
    assert [first["seconds"], second["seconds"]] == [5, 10.5]
    assert first["images_per_second"] == pytest.approx(4 * 8 / first["seconds"])
    assert second["images_per_second"] == pytest.approx(2 * 8 / (second["seconds"] - first["seconds"]))


def test_the_average_begins_with_a_small_decay(rarely_logged):
    """From the checkpoints, in float64: after n steps the next decay is (1 + n) / (10 + n), far below 0.9999."""
    for n in range(1, 6):
        before, after = (load_file(checkpoint_path(rarely_logged, step) / "ema.safetensors") for step in (n, n + 1))
        model = load_file(checkpoint_path(rarely_logged, n + 1) / "model.safetensors")
        decay = (1 + n) / (10 + n)
        for name, value in after.items():
            if value.is_floating_point():
                expected = decay * before[name].double() + (1 - decay) * model[name].double()
                torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7)


def test_the_saved_model_is_the_average(finished):
    folder, _ = finished
    model = load_pipeline(folder).unet.state_dict()
    checkpoint = checkpoint_path(folder, 6)
    assert_same_bits(model, load_file(checkpoint / "ema.safetensors"))
    raw = load_file(checkpoint / "model.safetensors")
    statistics = [name for name in raw if name.endswith("running_var")]
    assert statistics and not all(torch.equal(model[name], raw[name]) for name in statistics)


def test_without_an_average_the_weights_are_saved(tmp_path, tiny):
    train(tiny("train.ema_decay=0", "train.steps=2"), tmp_path / "run", progress=False)
    assert_same_bits(
        load_pipeline(tmp_path / "run").unet.state_dict(),
        load_file(checkpoint_path(tmp_path / "run", 2) / "model.safetensors"),
    )


def test_stopped_and_resumed_has_the_same_bits(finished, tmp_path, tiny):
    """The learning rate does not depend on train.steps here, which may change at a resumption."""
    settings = ["train.lr_schedule=constant", "data.flip=true", "train.log_every=2"]
    train(tiny(*settings, "train.steps=8", "train.checkpoint_every=8"), tmp_path / "whole", progress=False)
    train(tiny(*settings, "train.steps=5"), tmp_path / "parts", progress=False)
    result = train(tiny(*settings, "train.steps=8"), tmp_path / "parts", resume=True, progress=False)
    assert result.step == 8
    assert_same_bits(weights(tmp_path / "whole", 8), weights(tmp_path / "parts", 8))
    assert [row["step"] for row in read_metrics(tmp_path / "parts")] == [2, 4, 5, 6, 8]


def test_the_seed_decides_and_logging_does_not(tmp_path, tiny):
    for name, settings in {"a": [], "b": ["train.log_every=4", "train.sample_every=1"], "c": ["train.seed=1"]}.items():
        options = ["train.steps=2", "train.sample_steps=1", "train.sample_count=1", *settings]
        train(tiny(*options), tmp_path / name, progress=False)
    a, b, c = (weights(tmp_path / name, 2) for name in "abc")
    assert_same_bits(a, b)
    assert any(not torch.equal(a[key], c[key]) for key in a)


def test_accumulation_has_the_gradient_of_the_whole_batch(tmp_path, tiny):
    """Both micro-batches hold the same images and draws, so that batch norm sees the same in each as in one alone."""
    from sddpm.training.objective import make_loss
    from sddpm.training.processes import make_accelerator
    from sddpm.training.state import build_model, make_state
    from sddpm.training.step import backward

    generator = torch.Generator().manual_seed(0)
    half = Batch(
        torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8, generator=generator),
        torch.randn(4, 1, 8, 8, generator=generator),
        torch.tensor([1, 20, 300, 900]),
    )
    twice = Batch(*(torch.cat([tensor, tensor]) for tensor in (half.images, half.noise, half.t)))
    gradients = []
    for batch, accumulation in ((half, 1), (twice, 2)):
        config = tiny("train.precision=float64", f"train.accumulation={accumulation}", "train.max_grad_norm=0")
        accelerator = make_accelerator("cpu", "float64")
        state = make_state(build_model(config, 1), config, accelerator.device)
        prepared = accelerator.prepare_model(state.model)
        loss = backward(prepared, batch, make_loss(config, accelerator.device), accelerator, config.train)
        gradients.append((loss, [p.grad for p in state.model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-14)


def test_clipping(tmp_path, tiny):
    from sddpm.training.objective import make_loss
    from sddpm.training.processes import make_accelerator
    from sddpm.training.state import build_model, make_state
    from sddpm.training.step import backward

    batch = Batch(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.ones(4, 1, 8, 8), torch.arange(4) * 100)
    config = tiny("train.precision=float64", "train.max_grad_norm=0.01")
    accelerator = make_accelerator("cpu", "float64")
    state = make_state(build_model(config, 1), config, accelerator.device)
    loss_of = make_loss(config, accelerator.device)
    norm = backward(accelerator.prepare_model(state.model), batch, loss_of, accelerator, config.train).grad_norm
    clipped = torch.cat([p.grad.flatten() for p in state.model.parameters() if p.grad is not None]).norm()
    assert norm > 0.01
    assert clipped.item() == pytest.approx(0.01, rel=1e-4)


def poison(monkeypatch, at_step: int) -> None:
    """From `at_step` (counted from 1) on, the noise is NaN."""
    real = run_module.training_batches

    def batches(dataset, config, start, rows):
        for step, batch in enumerate(real(dataset, config, start, rows), start=start + 1):
            bad = step >= at_step
            yield Batch(batch.images, torch.full_like(batch.noise, math.nan) if bad else batch.noise, batch.t)

    monkeypatch.setattr(run_module, "training_batches", batches)


def test_a_loss_that_is_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, tiny, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        poison(patch, 5)
        with pytest.raises(UserError, match=r"not finite at step 5.*step-0000003 is intact"):
            train(tiny(), run, progress=False)
    assert [row["step"] for row in read_metrics(run)] == [1, 2, 3, 4]
    assert all(tensor.isfinite().all() for tensor in weights(run, 3).values())
    assert not checkpoint_path(run, 6).exists()
    assert train(tiny(), run, resume=True, progress=False).step == 6


def test_a_loss_that_is_nan_is_found_before_a_checkpoint_when_looks_are_rare(tmp_path, tiny, monkeypatch):
    """As on a GPU, where the numbers are looked at every ten steps and before anything is written."""
    monkeypatch.setattr(loop_module, "steps_between_looks", lambda device: 10)
    poison(monkeypatch, 5)
    with pytest.raises(UserError, match=r"not finite at step 6.*step-0000003 is intact"):
        train(tiny("train.log_every=1000"), tmp_path / "run", progress=False)
    assert not checkpoint_path(tmp_path / "run", 6).exists()


def test_a_loss_that_is_nan_at_once(tmp_path, tiny, monkeypatch):
    poison(monkeypatch, 1)
    with pytest.raises(UserError, match=r"at step 1;.*no checkpoint yet"):
        train(tiny(), tmp_path / "run", progress=False)


def test_a_folder_that_holds_something_is_refused(tmp_path, tiny):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty: add `resume=True`"):
        train(tiny(), tmp_path, progress=False)
    with pytest.raises(UserError, match="is a file"):
        train(tiny(), tmp_path / "notes.txt", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_nothing_to_resume(tmp_path, tiny):
    with pytest.raises(UserError, match="nothing to resume"):
        train(tiny(), tmp_path / "run", resume=True, progress=False)


def test_resuming_another_experiment_is_refused_with_the_keys(finished, tiny):
    folder, _ = finished
    with pytest.raises(UserError, match=r"other values of model\.tau, train\.lr:"):
        train(tiny("model.tau=3", "train.lr=1"), folder, resume=True, progress=False)


def test_resuming_a_finished_run_changes_nothing(finished, tiny):
    folder, _ = finished
    before = weights(folder, 6)
    config = load_config(folder / "config.yaml")
    assert train(config, folder, resume=True, progress=False).step == 6
    assert_same_bits(before, weights(folder, 6))
    assert len(read_metrics(folder)) == 6


def test_start_from_other_weights(finished, tmp_path, tiny):
    """With a learning rate that moves nothing, the run keeps the weights it was given."""
    folder, _ = finished
    config = tiny("train.steps=1", "train.lr=1e-30", "train.weight_decay=0")
    for name, source in (("from_run", folder), ("from_model", folder / "model")):
        train(config, tmp_path / name, init_from=source, progress=False)
        given = load_pipeline(folder).unet
        trained = load_file(checkpoint_path(tmp_path / name, 1) / "model.safetensors")
        assert all(torch.equal(parameter, trained[key]) for key, parameter in given.named_parameters())


def test_temporal_modulation_starts_from_a_model_without(finished, tmp_path, tiny):
    folder, _ = finished
    config = tiny("train.steps=1", "train.lr=1e-30", "train.weight_decay=0", "model.temporal_modulation=true")
    train(config, tmp_path / "tsm", init_from=folder, progress=False)
    trained = load_file(checkpoint_path(tmp_path / "tsm", 1) / "model.safetensors")
    given = load_pipeline(folder).unet.state_dict()
    scales = [key for key in trained if key not in given]
    assert scales and all(key.endswith(".p") and torch.equal(trained[key], torch.ones(2)) for key in scales)


def test_a_pure_network_starts_from_one_that_is_not(finished, tmp_path, tiny):
    """It has no second convolution in its tail; all else is there. The other way round that is missing."""
    folder, _ = finished
    pure = ("train.steps=1", "train.lr=1e-30", "train.weight_decay=0", "model.pure=true")
    train(tiny(*pure), tmp_path / "pure", init_from=folder, progress=False)
    trained = load_file(checkpoint_path(tmp_path / "pure", 1) / "model.safetensors")
    given = dict(load_pipeline(folder).unet.named_parameters())
    assert {key for key in given if key not in trained} == {f"readout.out_{name}" for name in
        ("conv.weight", "conv.bias", "norm.weight", "norm.bias")}  # fmt: skip
    assert all(torch.equal(trained[key], given[key]) for key in given if key in trained)
    with pytest.raises(UserError, match=r"it lacks readout\.out_conv"):
        train(tiny(), tmp_path / "back", init_from=tmp_path / "pure", progress=False)


def test_start_from_another_network_is_refused(finished, tmp_path, tiny):
    folder, _ = finished
    with pytest.raises(UserError, match="does not fit the config's model section: it has in another shape"):
        train(tiny("model.base_channels=16"), tmp_path / "a", init_from=folder, progress=False)
    with pytest.raises(UserError, match="it lacks"):
        train(tiny("model.num_res_blocks=2"), tmp_path / "b", init_from=folder, progress=False)
    with pytest.raises(UserError, match="no model at"):
        train(tiny(), tmp_path / "c", init_from=tmp_path / "nowhere", progress=False)
    with pytest.raises(UserError, match="choose one"):
        train(tiny(), folder, init_from=folder, resume=True, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.image_size=9", "must be a multiple of 2"),
        ("model.base_channels=7", "base_channels must be even"),
        ("data.dataset=digist", "did you mean digits"),
        ("data.split=test", "split"),
        ("train.accumulation=3", "is not divisible"),
        ("model.channel_mult=[]", "channel_mult"),
        ("model.v_threshold=-1", "v_threshold"),
        ("model.v_threshold={nowhere*: 1}", "nowhere"),
        ("diffusion.beta_end=0", "betas"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(tmp_path, tiny, override, message):
    with pytest.raises(UserError, match=message):
        train(tiny(override), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("precision", ["bf16", "float64"])
def test_precisions_one_after_another_in_one_python(tmp_path, tiny, precision):
    train(tiny("train.steps=1", f"train.precision={precision}"), tmp_path / "run", progress=False)
    stored = {t.dtype for t in load_file(checkpoint_path(tmp_path / "run", 1) / "model.safetensors").values()}
    assert stored <= {torch.float64 if precision == "float64" else torch.float32, torch.int64}


def test_progress_lines_where_there_is_no_terminal(tmp_path, tiny, capsys):
    train(tiny("train.steps=4", "train.log_every=2"), tmp_path / "run")
    first, *lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert first.startswith("step 1/4 took ")
    assert len(lines) == 2
    assert lines[0].startswith("step 2/4, loss ") and "images/s" in lines[0] and lines[0].endswith(" left")


def test_a_half_written_checkpoint_is_removed_at_the_next_start(tmp_path, tiny):
    run = tmp_path / "run"
    train(tiny("train.steps=3"), run, progress=False)
    debris = run / "checkpoints" / ".step-0000006.abc"
    debris.mkdir()
    (debris / "model.safetensors").write_bytes(b"half")
    train(tiny("train.steps=6", "train.lr_schedule=cosine"), run, resume=True, progress=False)
    assert not debris.exists()


def test_a_metrics_line_cut_short_is_dropped(tmp_path, tiny):
    run = tmp_path / "run"
    train(tiny("train.steps=3"), run, progress=False)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 0.1}\n{"step": 5, "lo')
    train(tiny(), run, resume=True, progress=False)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_out_of_memory_says_what_helps(tmp_path, tiny, monkeypatch):
    def full(*_args, **_kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(loop_module, "backward", full)
    with pytest.raises(UserError, match=r"ran out of memory: try train\.accumulation=4"):
        train(tiny("train.accumulation=2"), tmp_path / "run", progress=False)
