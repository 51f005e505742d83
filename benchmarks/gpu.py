"""All speed benchmarks on a GPU in one command: neurons, training step, sampling, memory, compared with the reference.

    python benchmarks/gpu.py --out OUT [--reference CHECKOUT] [--stages training sampling] [--minutes 9]

Writes OUT/gpu.json and OUT/gpu.md after every number, so that nothing is lost when time is up; another call with other
stages adds to them. Missing parts (Triton, spikingjelly, a checkout of the authors' repository) are reported and left
out. Networks are untrained, with batch-norm statistics of noise. "Default" is PyTorch's default: TF32 in convolutions.
Spikingjelly's neurons run as plain PyTorch, as in the version the authors pin, unless SJ_IF_CUDA_IMPLEMENTATION says
otherwise (spikingjelly 2: auto, cuda or triton). --device cpu --quick tests the script.
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("SJ_IF_CUDA_IMPLEMENTATION", "torch")  # read when spikingjelly is imported
sys.path.insert(0, str(Path(__file__).parent))

import torch
from gpu_layers import exactness, neurons, norms, sweep
from gpu_measure import Bench, Row, copy_bandwidth, matmul_peaks
from gpu_networks import pipelines, profile, sampling, training

from sddpm.files import atomic_path
from sddpm.neurons import kernels


def machine(bench: Bench, _options: Any) -> Iterator[Row]:
    """The machine, and its peak speeds."""
    row: Row = {"what": "device", "name": "CPU", "torch": torch.__version__, "neurons": kernels.describe(bench.device)}
    if bench.cuda:
        properties = torch.cuda.get_device_properties(bench.device)
        row |= {"name": properties.name, "memory GiB": round(properties.total_memory / 2**30, 1)}
        row |= {"cudnn": torch.backends.cudnn.version(), "TF32 in convolutions": torch.backends.cudnn.allow_tf32}
        row |= {"TF32 in matrix products": torch.backends.cuda.matmul.allow_tf32}
    for name in ("triton", "spikingjelly"):
        try:
            row[name] = getattr(importlib.import_module(name), "__version__", "installed")
        except ImportError:
            row[name] = "missing"
    yield row
    yield {"what": "copy", "GB/s": copy_bandwidth(bench)}
    for name, peak in bench.peaks.items():
        yield {"what": f"matrix product, {name}", "TFLOP/s": peak}


STAGES: dict[str, Callable[[Bench, Any], Iterator[Row]]] = {
    "machine": machine,
    "neurons": neurons,
    "norms": norms,
    "training": training,
    "sampling": sampling,
    "pipelines": pipelines,
    "exactness": exactness,
    "profile": profile,
    "sweep": sweep,
}


def markdown(results: dict[str, Any]) -> str:
    """A table for each stage, with the columns of all its rows."""
    sections = []
    for stage, found in results.items():
        columns = list(dict.fromkeys(name for row in found["rows"] for name in row))
        lines = [f"## {stage}", "", f"{found['settings']}, {found['seconds']:.0f} s", ""]
        if found.get("error"):
            lines += [f"Stopped by {found['error']}", ""]
        lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [f"| {' | '.join(shown(row.get(name)) for name in columns)} |" for row in found["rows"]]
        sections.append("\n".join(lines))
    return "\n\n".join(sections) + "\n"


def shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def write(out: Path, results: dict[str, Any]) -> None:
    for name, text in (("gpu.json", json.dumps(results, indent=1)), ("gpu.md", markdown(results))):
        with atomic_path(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def run_stage(bench: Bench, stage: str, options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Run a stage until its end, a failure or the time limit, writing every row."""
    began = time.monotonic()
    settings = f"channels {options.channels}, T {options.T}, batches {options.batch}"
    found = results[options.label + stage] = {"settings": settings, "seconds": 0.0, "rows": []}
    print(f"\n{options.label}{stage}", flush=True)
    try:
        for row in STAGES[stage](bench, options):
            add(found["rows"], row)
            found["seconds"] = time.monotonic() - began
            write(options.out, results)
            if bench.out_of_time():
                found["error"] = "the time limit"
                break
    except Exception as error:  # the other stages still run
        found["error"] = f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"
        print(f"  stopped by {found['error']}", flush=True)
    bench.clean()
    write(options.out, results)


def add(rows: list[Row], row: Row) -> None:
    rows.append(row)
    print("  " + "  ".join(f"{name}: {shown(value)}" for name, value in row.items() if value is not None), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
    parser.add_argument("--device", default="cuda", help="cuda [default] or cpu")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--channels", type=int, default=128, help="channels of the first level [128]")
    parser.add_argument("--T", type=int, default=4, help="SNN time steps [4]")
    parser.add_argument("--batch", type=int, nargs="+", default=[128], help="batch sizes [128]")
    parser.add_argument("--reference", type=Path, metavar="CHECKOUT", help="checkout of the authors' repository")
    parser.add_argument("--minutes", type=float, default=9.0, help="start nothing new after this time [9]")
    parser.add_argument("--label", default="", help="prefix of the stages' names, to keep several calls apart")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and few repeats, to test the script")
    options = parser.parse_args()
    if options.quick:
        options.channels, options.T, options.batch = 8, 2, [2]
    bench = Bench(torch.device(options.device), options.quick, time.monotonic() + 60 * options.minutes)
    path = options.out / "gpu.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write(options.out, results)
    bench.peaks.update(matmul_peaks(bench))
    for stage in options.stages:
        if bench.out_of_time():
            print(f"\n{stage}: no time left", flush=True)
            continue
        run_stage(bench, stage, options, results)
    print(f"\nwrote {path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    main()
