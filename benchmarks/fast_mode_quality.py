"""The quality loss of fast mode: FAD of the same seeds sampled in exact and fast mode, and the paired difference.

    python benchmarks/fast_mode_quality.py MODEL --fad-weights FILE.pth --statistics FILE.npz [--samples 1000]
                                           [--steps 20] [--batch-size 50] [--against eager|onnx]

MODEL is a saved model of grey or colour images; weights and statistics are of FSVAE's autoencoder for its data.
Seeds are shared, and so are the samples drawn in the bootstrap, so that the interval is that of the difference.
--against eager compares exact mode with the eager network instead, and --against onnx with its ONNX file in
onnxruntime: these differ only by rounding.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from scores import PairedFad
from torch import Tensor

from sddpm import SpikingDiffusionPipeline, load_pipeline
from sddpm.data import unit_to_uint8

RESAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--fad-weights", type=Path, required=True)
    parser.add_argument("--statistics", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--against", choices=("fast", "eager", "onnx"), default="fast")
    args = parser.parse_args()
    pipeline = load_pipeline(args.model)
    counts = {"channels": pipeline.unet.config.in_channels, "samples": args.samples, "resamples": RESAMPLES}
    fad = PairedFad(args.fad_weights, args.statistics, **counts)

    def sample(engine: str) -> Tensor:
        options = {"batch_size": args.batch_size, "num_inference_steps": args.steps, "solver": "ddim"}
        if engine == "onnx":
            batches = through_onnx(pipeline).stream(range(args.samples), **options)
        else:
            batches = pipeline.stream(range(args.samples), engine=engine, **options)
        return unit_to_uint8(torch.cat([images for _, images in batches]))

    images = {engine: sample(engine) for engine in ("exact", args.against)}
    rows = {engine: fad.features(found) for engine, found in images.items()}
    for engine, features in rows.items():
        found = fad.of(features)
        print(f"{engine}: FAD {found.value:.3f} (95 % interval {found.interval[0]:.3f} to {found.interval[1]:.3f})")
    change = fad.of(rows[args.against], less=rows["exact"])
    verdict = "worse" if change.above_zero else "better" if change.below_zero else "within noise"
    print(
        f"{args.against} minus exact: {change.value:+.3f} (95 % interval {change.interval[0]:+.3f} to"
        f" {change.interval[1]:+.3f}; {verdict}), {args.samples} shared seeds, ddim with {args.steps} steps"
    )
    first, second = (found.float() for found in images.values())
    same = (first - second).abs().flatten(1).amax(1) <= 1
    rms = (first - second).square().mean().sqrt().item()
    print(f"{same.float().mean().item():.1%} of the images are the same to 1 in 255; rms difference {rms:.1f} of 255")


def through_onnx(pipeline: SpikingDiffusionPipeline) -> SpikingDiffusionPipeline:
    """The same model, exported and read back."""
    from sddpm.export.onnx_file import export_onnx
    from sddpm.export.onnx_runner import load_onnx

    with TemporaryDirectory() as folder:
        export_onnx(pipeline, Path(folder) / "model.onnx")
        return load_onnx(Path(folder) / "model.onnx")


if __name__ == "__main__":
    main()
