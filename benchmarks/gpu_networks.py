"""Stages of benchmarks/gpu.py about whole networks. Each yields rows: the case, and numbers by name."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gpu_measure import Bench, Row, Task, tf32
from torch import Tensor, nn

from sddpm.inference import compile_model
from sddpm.inference.graphs import Graphed
from sddpm.models import SpikingUNet2DModel
from sddpm.models.macs import layer_macs


@dataclass(frozen=True)
class Variant:
    """name: for the table; arithmetic: whose peak is the baseline; tf32: whether float32 convolutions may use TF32;
    build: makes the task to be timed."""

    name: str
    arithmetic: str
    tf32: bool
    build: Callable[[], Task]


def network(bench: Bench, channels: int, T: int) -> SpikingUNet2DModel:
    """The paper's network, untrained, with batch-norm statistics of its inputs."""
    torch.manual_seed(0)
    options = {"sample_size": 8, "channel_mult": (1, 2), "num_res_blocks": 1} if bench.quick else {}
    unet = SpikingUNet2DModel(base_channels=channels, T=T, **options).to(bench.device)
    for module in unet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        unet.train()(torch.randn(8, *image(unet), device=bench.device), torch.arange(8, device=bench.device) * 100)
    for module in unet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return unet.eval()


def image(unet: SpikingUNet2DModel) -> tuple[int, int, int]:
    return unet.config["in_channels"], unet.config["sample_size"], unet.config["sample_size"]


def flop(unet: SpikingUNet2DModel) -> float:
    """Floating-point operations of one image's forward pass: two per multiply-accumulate, dense, over all T."""
    T, once = unet.config["T"], ("time", "encoder.conv1")
    return 2.0 * sum(n * (1 if any(word in name for word in once) else T) for name, n in layer_macs(unet).items())


def authors_network(path: Path, unet: SpikingUNet2DModel) -> nn.Module:
    """The network in a checkout of the authors' repository, with the size of ours."""
    sys.path.insert(0, str(path))
    try:
        kind = importlib.import_module("model.SpikingUNet").Spk_UNet
    finally:
        sys.path.remove(str(path))
    config = unet.config
    torch.manual_seed(0)
    return kind(
        T=config["num_train_timesteps"], ch=config["base_channels"], ch_mult=list(config["channel_mult"]), attn=[],
        num_res_blocks=config["num_res_blocks"], dropout=0.1, timestep=config["T"], img_ch=config["in_channels"],
    )  # fmt: skip


def baselines(bench: Bench, options: Any, unet: SpikingUNet2DModel) -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    """The baselines by name: the reference-equivalent, and the authors' network if there is a checkout."""

    def equivalent() -> nn.Module:
        from reference_equivalent import reference_equivalent

        return reference_equivalent(unet)

    yield "reference-equivalent", equivalent
    if options.reference is not None:
        yield "authors' repository", lambda: authors_network(options.reference, unet).to(bench.device)


def resetting(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """Wrap a network that keeps membranes in spikingjelly's modules so that each call starts without state."""
    from spikingjelly.activation_based import functional as sj

    def predict(x: Tensor, t: Tensor) -> Tensor:
        sj.reset_net(model)
        return model(x, t)

    return predict


def plain_step(bench: Bench, model: nn.Module, x0: Tensor, autocast: bool) -> Task:
    """A training step as in the authors' code: noise, squared error, gradient clipping, Adam. No average of weights."""
    predict, optimizer = resetting(model.train()), torch.optim.Adam(model.parameters(), lr=2e-4)

    def step() -> None:
        t = torch.randint(1000, (len(x0),), device=bench.device)
        noise = torch.randn_like(x0)
        with torch.autocast(bench.device.type, torch.bfloat16) if autocast else nullcontext():
            loss = F.mse_loss(predict((x0 + noise) / 2**0.5, t), noise)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_step(bench: Bench, unet: SpikingUNet2DModel, batch_size: int, precision: str, compiled: bool) -> Task:
    """A training step of `sddpm train`, from images in memory to the average of the weights."""
    from sddpm.training import load_config
    from sddpm.training.batches import Batch
    from sddpm.training.objective import make_loss
    from sddpm.training.processes import make_accelerator
    from sddpm.training.state import make_state
    from sddpm.training.step import backward, update

    settings = [f"train.precision={precision}", f"train.compile={str(compiled).lower()}", "train.optimizer=adamw"]
    config = load_config("cifar10", settings)
    accelerator = make_accelerator(bench.device.type, precision, compiled)
    state = make_state(unet, config, accelerator.device)
    prepared, loss_of = accelerator.prepare_model(state.model), make_loss(config, accelerator.device)
    shape = (batch_size, *image(unet))
    batch = Batch(torch.randint(256, shape, dtype=torch.uint8), torch.randn(shape), torch.randint(1000, (batch_size,)))

    def step() -> None:
        backward(prepared, batch.pin() if bench.cuda else batch, loss_of, accelerator, config.train)
        update(state, config.train)

    return step


def training(bench: Bench, options: Any) -> Iterator[Row]:
    """A training step: baselines, then ours in each arithmetic; the first baseline is measured again at the end."""
    default = "tf32" if bench.cuda else "fp32"
    for batch in options.batch:
        unet = network(bench, options.channels, options.T)
        x0 = torch.rand(batch, *image(unet), device=bench.device) * 2 - 1

        def theirs(build: Callable[[], nn.Module], autocast: bool, x0: Tensor = x0) -> Task:
            return plain_step(bench, build(), x0, autocast)

        def ours(precision: str, compiled: bool = False, batch: int = batch) -> Task:
            return our_step(bench, network(bench, options.channels, options.T), batch, precision, compiled)

        known = dict(baselines(bench, options, unet))
        name, build = next(iter(known.items()))
        variants: list[Variant] = [
            Variant(f"{name}, default", default, True, partial(theirs, build, False)) for name, build in known.items()
        ]
        again = replace(variants[0], name=f"{variants[0].name}, again")
        variants += [
            Variant(f"{name}, bf16 autocast", "bf16", True, partial(theirs, build, True)),
            Variant("ours, float32 without TF32", "fp32", False, partial(ours, "float32")),
            Variant("ours, float32, default", default, True, partial(ours, "float32")),
            Variant("ours, bf16", "bf16", True, partial(ours, "bf16")),
        ]
        if not bench.quick:
            variants.append(Variant("ours, bf16, compiled", "bf16", True, partial(ours, "bf16", True)))
        work = 3 * flop(unet) * batch  # backward costs two forward passes
        yield from compared(bench, [*variants, again], batch, work)


def compared(bench: Bench, variants: list[Variant], batch: int, work: float) -> Iterator[Row]:
    """Measure the variants one by one, each freed before the next; ratios are to the first that works."""
    first = None
    for variant in variants:
        row: Row = {"what": variant.name, "batch": batch}
        if bench.out_of_time():
            yield row | {"error": "out of time"}
            continue
        bench.clean()
        task = None
        try:
            with tf32(variant.tf32):
                task = variant.build()
                seconds = bench.medians({variant.name: task})[variant.name]
                memory = bench.peak_memory(task)
        except Exception as error:  # a missing part or too little memory must not stop the benchmark
            yield row | {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
            continue
        finally:
            del task
        first = seconds if first is None else first
        yield row | {
            "ms": seconds * 1e3,
            "times as fast": first / seconds,
            "images/s": batch / seconds,
            "TFLOP/s": work / seconds / 1e12,
            f"share of {variant.arithmetic} peak": bench.share_of_peak(work, seconds, variant.arithmetic),
            "peak MiB": memory,
        }


def sampling(bench: Bench, options: Any) -> Iterator[Row]:
    """One evaluation of the network for sampling."""
    default = "tf32" if bench.cuda else "fp32"
    for batch in options.batch:
        unet = network(bench, options.channels, options.T)
        x = torch.randn(batch, *image(unet), device=bench.device)

        def baseline(build: Callable[[], nn.Module], x: Tensor = x) -> Task:
            predict, t = resetting(build().eval()), torch.full((len(x),), 500, device=bench.device)
            return torch.no_grad()(lambda: predict(x, t))

        def eager(autocast: bool, x: Tensor = x) -> Task:
            model = network(bench, options.channels, options.T).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

            @torch.no_grad()
            def evaluate() -> None:
                with torch.autocast(bench.device.type, torch.bfloat16) if autocast else nullcontext():
                    model(x, 500)

            return evaluate

        def folded(mode: str, form: str = "", unet: SpikingUNet2DModel = unet, x: Tensor = x) -> Task:
            model = compile_model(unet, mode)
            inner = model.refresh()
            if form == "compiled":
                evaluate = torch.compile(inner.evaluate, dynamic=False)
                inner.graphs = Graphed(evaluate) if bench.cuda else None
            elif form == "one by one":
                inner.graphs = None
            return lambda: model(x, 500)

        variants: list[Variant] = [
            Variant(f"{name}, default", default, True, partial(baseline, build))
            for name, build in baselines(bench, options, unet)
        ]
        again = replace(variants[0], name=f"{variants[0].name}, again")
        variants += [
            Variant("ours eager, float32, default", default, True, partial(eager, False)),
            Variant("ours eager, bf16 autocast", "bf16", True, partial(eager, True)),
            Variant("exact", "fp32", False, partial(folded, "exact")),
            Variant("fast, kernels launched one by one", "bf16", True, partial(folded, "fast", "one by one")),
            Variant("fast", "bf16", True, partial(folded, "fast")),
        ]
        if not bench.quick:
            variants.append(Variant("fast, torch.compile", "bf16", True, partial(folded, "fast", "compiled")))
        yield from compared(bench, [*variants, again], batch, flop(unet) * batch)


def pipelines(bench: Bench, options: Any) -> Iterator[Row]:
    """Whole pictures: the pipeline with DDIM, including everything around the network."""
    from sddpm.diffusion.solvers import make_scheduler
    from sddpm.pipelines import SpikingDiffusionPipeline

    steps = 2 if bench.quick else 20
    unet = network(bench, options.channels, options.T)
    pipeline = SpikingDiffusionPipeline(unet, make_scheduler("ddim", num_train_timesteps=1000))
    for batch in options.batch:
        seeds, tasks = range(batch), {}
        for engine in ("eager", "exact", "fast"):
            tasks[engine] = lambda engine=engine, seeds=seeds: pipeline(
                seeds=seeds, batch_size=len(seeds), num_inference_steps=steps, engine=engine, output_type="pt",
                progress=False,
            )  # fmt: skip
        seconds = bench.medians(tasks, budget=6.0)
        for engine, value in seconds.items():
            yield {
                "what": f"{engine}, DDIM with {steps} steps",
                "batch": batch,
                "s": value,
                "ms a step": value / steps * 1e3,
                "times as fast": seconds["eager"] / value,
                "images/s": batch / value,
            }


def profile(bench: Bench, options: Any) -> Iterator[Row]:
    """The kernels that use most time in a training step and in an evaluation."""
    from torch.profiler import ProfilerActivity

    batch, unet = options.batch[-1], network(bench, options.channels, options.T)
    x, fast = torch.randn(batch, *image(unet), device=bench.device), compile_model(unet, "fast")
    fast.refresh().graphs = None
    tasks: dict[str, Task] = {
        "training step, bf16": our_step(bench, network(bench, options.channels, options.T), batch, "bf16", False),
        "evaluation, fast": lambda: fast(x, 500),
    }
    activities = [ProfilerActivity.CUDA if bench.cuda else ProfilerActivity.CPU]
    for name, task in tasks.items():
        for _ in range(2):
            task()
        bench.wait()
        with torch.profiler.profile(activities=activities) as profiler:
            task()
            bench.wait()
        took = {event.key: event.self_device_time_total if bench.cuda else event.self_cpu_time_total
                for event in profiler.key_averages()}  # fmt: skip
        total = sum(took.values()) or 1.0
        for kernel, microseconds in sorted(took.items(), key=lambda item: -item[1])[: 3 if bench.quick else 14]:
            yield {"what": name, "kernel": kernel[:90], "ms": microseconds / 1e3, "share": microseconds / total}
