"""Samples pictures from FILE.onnx, written by `sddpm export MODEL FILE.onnx`, with only numpy, onnxruntime and pillow.

    python examples/onnx_sample.py FILE.onnx OUT.png [--count 8] [--steps N] [--class 3]

Uses DDIM and gives the pictures of `sddpm sample FILE.onnx --solver ddim --steps N` for the same seeds, up to
rounding.
"""

import argparse
import json
import math
import sys
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image


def noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers, drawn like PyTorch on a CPU: a Mersenne Twister, and Box-Muller on blocks of 16."""
    count = math.prod(shape)
    blocks = np.frombuffer(np.random.RandomState(seed).bytes(4 * count), "<u4") & 0xFFFFFF
    u = (blocks / np.float32(1 << 24)).astype(np.float32).reshape(-1, 2, 8)
    radius, angle = np.sqrt(-2 * np.log(1 - u[:, 0])), np.float32(2 * math.pi) * u[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(shape).astype(np.float32)


def alphas_cumprod(num_train_timesteps: int, beta_schedule: str, beta_start: float, beta_end: float) -> np.ndarray:
    """Fraction of the signal's variance that remains after each of the N noising steps."""
    betas = np.linspace(beta_start, beta_end, num_train_timesteps)
    if beta_schedule == "cosine":
        bar = np.cos((np.arange(num_train_timesteps + 1) / num_train_timesteps + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    return np.cumprod(1 - betas)


def time_steps(data: dict[str, Any], wanted: int | None) -> list[int]:
    """The decreasing time steps of the evaluations: those stored with the model, if there are so many or no number is
    wanted, else even ones. A distilled model has no others."""
    kept, N = data["scheduler_config"].get("timesteps"), data["schedule"]["num_train_timesteps"]
    if kept is not None and wanted in (None, len(kept)):
        return kept
    if data["scheduler_config"].get("distilled"):
        print(f"error: this model was distilled to {len(kept)} evaluations: leave out --steps", file=sys.stderr)
        raise SystemExit(2)
    n = 20 if wanted is None else wanted
    return [(2 * N * (n - i) + n) // (2 * n) - 1 for i in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--steps", type=int, help="evaluations; default: the time steps of the model, else 20")
    parser.add_argument("--class", type=int, dest="label", help="for a model with classes")
    args = parser.parse_args()

    session = onnxruntime.InferenceSession(args.model, providers=["CPUExecutionProvider"])
    data = json.loads(session.get_modelmeta().custom_metadata_map["sddpm"])
    a, steps = alphas_cumprod(**data["schedule"]), time_steps(data, args.steps)
    shape = tuple(session.get_inputs()[0].shape[1:])
    x = np.stack([noise(seed, shape) for seed in range(args.count)])
    feed = {}
    if any(value.name == "class" for value in session.get_inputs()):
        no_class = data["config"]["num_classes"]
        feed["class"] = np.full(args.count, no_class if args.label is None else args.label, np.int64)
    for t, following in zip(steps, [*steps[1:], None], strict=True):
        predicted = session.run(["prediction"], {"x_t": x, "t": np.full(args.count, t, np.int64), **feed})[0]
        signal, spread = np.float32(a[t] ** 0.5), np.float32((1 - a[t]) ** 0.5)
        x0 = (
            signal * x - spread * predicted
            if data["prediction_type"] == "v_prediction"
            else (x - spread * predicted) / signal
        )
        x0 = x0 * np.float32(data["x0_scale"])
        x0 = x0.clip(-1, 1) if data["clip_sample"] else x0
        epsilon = (x - signal * x0) / spread
        left = 1.0 if following is None else a[following]
        x = np.float32(left**0.5) * x0 + np.float32((1 - left) ** 0.5) * epsilon
    pixels = ((x.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
    row = np.concatenate(list(pixels), axis=-1).transpose(1, 2, 0)
    Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row).save(args.out)


if __name__ == "__main__":
    main()
