"""What the Triton kernels become on a GPU. Triton compiles for a GPU that is not there, down to machine code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

COMPILE = """
import json, re, subprocess, sys
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sddpm.models.kernels import triton_channel_kernels, triton_channels
from sddpm.neurons.kernels import triton_kernels, triton_neuron

POINTERS = {"leak": "fp32", "v_threshold": "fp32", "rest": "fp32", "a": "fp32", "b": "fp32", "c": "fp32"}
cuobjdump = next(Path(triton.__file__).parent.glob("backends/nvidia/bin/cuobjdump"), None)

def kind(name, constants, currents):
    if name in constants:
        return "constexpr"
    if name in ("x_ptr", "spikes_ptr", "grad_ptr", "grad_x_ptr", "add_ptr", "out_ptr"):
        return "*" + currents
    if name == "leak" and constants["CHARGE"] >= 3 or name.endswith("_ptr"):
        return "*fp32"
    return POINTERS.get(name, "i32")

results = {}
for currents in ("bf16", "fp32"):
    rows, width = triton_channels._tile(4, 128)
    neuron = {"T": 4, "CHARGE": 0, "HARD": True}
    gradient = {"SURROGATE": 0, "DETACH": False}
    block, tile = {"BLOCK": triton_neuron.block_size(4)}, {"BP": rows, "BC": width, "TILES": 4}
    cases = {
        "forward": (triton_kernels.forward_kernel, {**neuron, **block}),
        "backward": (triton_kernels.backward_kernel, {**neuron, **gradient, **block}),
        "PLIF backward": (triton_kernels.backward_kernel, {**neuron, **gradient, **block, "CHARGE": 3}),
        "norm forward": (triton_channel_kernels.channel_forward_kernel, {**neuron, **tile}),
        "affine forward": (
            triton_channel_kernels.channel_forward_kernel,
            {**neuron, **tile, "centre_ptr": None, "gain_ptr": None},
        ),
        "add": (triton_channel_kernels.channel_add_kernel, {"T": 4, **tile, "gain_ptr": None}),
        "norm sums": (triton_channel_kernels.channel_backward_kernel, {**neuron, **gradient, **tile, "SUMS": True}),
        "norm backward": (triton_channel_kernels.channel_backward_kernel, {**neuron, **gradient, **tile, "SUMS": 0}),
    }
    for name, (kernel, constants) in cases.items():
        if currents == "fp32" and name not in ("forward", "backward", "norm backward"):
            continue
        signature = {name: kind(name, constants, currents) for name in kernel.arg_names}
        aligned = [i for i, k in enumerate(signature.values()) if k.startswith("*") or k == "i32"]
        source = ASTSource(kernel, signature, constants, {(i,): [["tt.divisibility", 16]] for i in aligned})
        target = GPUTarget("cuda", 90 if currents == "bf16" else 80, 32)
        compiled = triton.compile(source, target=target, options={"enable_fp_fusion": False})
        Path("kernel.cubin").write_bytes(compiled.asm["cubin"])
        usage = subprocess.run([cuobjdump, "-res-usage", "kernel.cubin"], capture_output=True, text=True).stdout
        loads = re.findall(r"ld\\.global\\S*", compiled.asm["ptx"])
        results[f"{name}, {currents}"] = {
            "contracted": len(re.findall(r"\\bfma\\.", compiled.asm["ptx"])),
            "flushed": compiled.asm["ptx"].count(".ftz"),
            "wide loads": sum(".v4.b32" in load for load in loads),
            "registers": int(re.search(r"REG:(\\d+)", usage)[1]),
            "stack": int(re.search(r"STACK:(\\d+)", usage)[1]),
        }
print(json.dumps(results))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux")
def test_kernels_compile_for_gpus_with_exact_arithmetic_and_wide_loads(tmp_path: Path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    run = subprocess.run(
        [sys.executable, "-c", COMPILE], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout.splitlines()[-1])
    assert len(results) == 11
    for name, kernel in results.items():
        assert kernel["contracted"] == 0, name  # a fused multiply-add would round once where PyTorch rounds twice
        assert kernel["flushed"] == 0, name  # denormals are kept, as on the CPU
        needed = (4 if "bf16" in name else 8) * (1 if "forward" in name else 2)
        assert kernel["wide loads"] >= needed, (name, kernel)  # 16 bytes a thread, for every time step
        assert kernel["stack"] <= 16, (name, kernel)  # nothing spills
