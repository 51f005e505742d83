"""A model as a page for the browser: one folder with the network, a solver in plain JavaScript and onnxruntime-web."""

import json
import math
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from sddpm.data.download import default_cache
from sddpm.diffusion.timesteps import is_distilled, kept_timesteps
from sddpm.errors import UserError
from sddpm.export.description import describe
from sddpm.export.onnx_file import onnx_model
from sddpm.files import atomic_path
from sddpm.models.config import sample_shape
from sddpm.models.thresholds import Thresholds, spiking_neurons
from sddpm.pipelines import SamplingOptions, SpikingDiffusionPipeline

RUNTIME_VERSION = "1.30.0"
RUNTIME_FILES = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PAGE = Path(__file__).parent / "page"
SOLVERS = ("dpm++", "ddim")  # of the page


def export_web(
    pipeline: SpikingDiffusionPipeline, out: Path, *, thresholds: Thresholds | None = None, name: str | None = None
) -> None:
    """Write a folder that, served by any web server, samples from the model in the visitor's browser.

    Weights are float16, as in released models. The page loads nothing but this folder.

    Args:
        pipeline: a model of images with one or three channels.
        out: the folder; an earlier export is replaced.
        thresholds: firing thresholds for the export; None for those that the model samples with.
        name: the model's name on the page; None for the name under which it was saved.

    Raises:
        UserError: a model that the page does not support, or onnxruntime-web cannot be downloaded with npm.
    """
    shape = sample_shape(pipeline.unet.config)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UserError(
            f"the page needs a model of images with 1 or 3 channels; this model samples {' x '.join(map(str, shape))}"
        )
    if pipeline.unet.config.get("synaptic_currents"):
        raise UserError(
            "the page needs a model of images; this model denoises synaptic currents: export it to FILE.onnx"
        )
    if not hasattr(pipeline.scheduler, "alphas_cumprod"):
        raise UserError(f"the page needs a table alphas_cumprod, which {type(pipeline.scheduler).__name__} lacks")
    neurons = spiking_neurons(pipeline.unet)
    model = onnx_model(pipeline, thresholds=thresholds, rates=bool(neurons), half=True)
    runtime = runtime_files(default_cache() / "onnxruntime-web")
    with atomic_path(out) as temporary:
        temporary.mkdir()
        for file in [*sorted(PAGE.iterdir()), *runtime]:
            shutil.copyfile(file, temporary / file.name)
        (temporary / "model.onnx").write_bytes(model.SerializeToString())
        # With other thresholds, sampling from the saved model gives other pictures.
        facts = page_facts(pipeline, model, name) | {"repeatable": thresholds is None}
        (temporary / "model.json").write_text(json.dumps(facts), encoding="utf-8")


def page_facts(pipeline: SpikingDiffusionPipeline, model: onnx.ModelProto, name: str | None = None) -> dict[str, Any]:
    """The model's data for the page. For the solver: alphas_cumprod, prediction_type, clip_sample, x0_scale, timesteps
    (those that the scheduler keeps, or null), distilled (whether the model samples at these alone) and start (see
    `start_of`). For display: name, shape, T, parameters, num_classes, class_names, firing_rates (its layers) and
    neurons (of each layer)."""
    config, neurons = pipeline.unet.config, spiking_neurons(pipeline.unet)
    own = Path(str(config.get("_name_or_path") or "model")).name
    kept = describe(pipeline, rates=bool(neurons))
    names = ("prediction_type", "clip_sample", "x0_scale", "T", "class_names", "firing_rates")
    return {name: kept[name] for name in names} | {
        "name": name or own,
        "shape": list(sample_shape(config)),
        "parameters": sum(p.numel() for p in pipeline.unet.parameters()),
        "num_classes": config.get("num_classes"),
        "neurons": list(layer_sizes(model, list(neurons)).values()),
        "timesteps": kept_timesteps(pipeline.scheduler.config),
        "distilled": is_distilled(pipeline.scheduler.config),
        "start": start_of(pipeline),
        "alphas_cumprod": pipeline.scheduler.alphas_cumprod.double().tolist(),
    }


def start_of(pipeline: SpikingDiffusionPipeline) -> dict[str, Any]:
    """The solver, steps, time steps (null for even ones), x0_scale and noise_clip (null for no limit) with which the
    page starts: those that the model samples with by default if the page has the solver, else dpm++ with 10 steps and
    the model's own x0_scale. A distilled model is one of ddim."""
    default = pipeline.resolve_options(SamplingOptions())
    solver = "ddim" if is_distilled(pipeline.scheduler.config) else default.solver or pipeline.solver
    if solver not in SOLVERS:
        return {"solver": "dpm++", "steps": 10, "timesteps": None, "x0_scale": pipeline.x0_scale, "noise_clip": None}
    steps = {"steps": default.num_inference_steps, "timesteps": default.timesteps}
    return {"solver": solver, **steps, "x0_scale": default.x0_scale, "noise_clip": default.noise_clip}


def layer_sizes(model: onnx.ModelProto, layers: list[str]) -> Mapping[str, int]:
    """The number of neurons of each layer, for one picture."""
    if not layers:
        return {}
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in inferred.graph.value_info
    }
    return {layer: math.prod(shapes[f"{layer}.spikes"][2:]) for layer in layers}


def runtime_files(cache: Path) -> list[Path]:
    """The files of onnxruntime-web, from the cache, or downloaded there by npm. Raises `UserError` if npm fails."""
    folder = cache / RUNTIME_VERSION
    files = [folder / name for name in RUNTIME_FILES]
    if all(file.is_file() for file in files):
        return files
    package = f"onnxruntime-web@{RUNTIME_VERSION}"
    with TemporaryDirectory() as scratch:
        command = ["npm", "pack", package, "--silent", "--pack-destination", scratch]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, cwd=scratch)
        except FileNotFoundError as error:
            raise UserError(
                f"the page needs {package}, which is downloaded once by npm, but npm is not installed: install it, or "
                "put"
                f" {', '.join(RUNTIME_FILES)} of that package into {folder}"
            ) from error
        except subprocess.CalledProcessError as error:
            reason = next((line for line in error.stderr.splitlines() if line.strip()), "npm gives no reason")
            raise UserError(f"npm cannot download {package}: {reason}") from error
        (packed,) = Path(scratch).glob("*.tgz")
        with atomic_path(folder, owned=True) as temporary, tarfile.open(packed) as archive:
            temporary.mkdir()
            for name in RUNTIME_FILES:
                content = archive.extractfile(f"package/dist/{name}")
                if content is None:
                    raise UserError(f"{package} has no {name}")
                (temporary / name).write_bytes(content.read())
    return files
