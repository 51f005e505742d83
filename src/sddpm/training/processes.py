"""Device, precision and processes of a run, by accelerate."""

import os

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from sddpm.choices import check_choice
from sddpm.errors import UserError
from sddpm.pipelines.devices import pick_device

DEVICES = ("auto", "cpu", "cuda", "mps")


def make_accelerator(device: str, precision: str, compile: bool = False) -> Accelerator:
    """The accelerator of a single process, or of this one of several that torchrun started.

    Args:
        device: one of `DEVICES`.
        precision: "float32", "bf16" (autocast) or "float64".
        compile: whether prepared models are compiled.

    Raises:
        UserError: a device or precision that this machine lacks; processes that are not connected.
    """
    check_choice("device", device, DEVICES)
    kind = pick_device(device).type
    if precision == "float64" and kind == "mps":
        raise UserError("train.precision float64 does not exist on mps: choose float32")
    expected = _expected_processes()
    AcceleratorState._reset_state(reset_partial_state=True)  # else the first run's settings apply to all
    try:
        accelerator = Accelerator(
            cpu=kind == "cpu",
            mixed_precision="bf16" if precision == "bf16" else "no",
            dynamo_backend="inductor" if compile else "no",
        )
    except ValueError as error:
        raise UserError(f"train.precision {precision} on {kind}: {error}") from error
    except Exception as error:  # accelerate and torch raise various errors for a launcher's settings
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"the requested processes could not start on {kind}: {reason}; start several with `torchrun "
            "--nproc-per-node N --no-python sddpm train ...`"
        ) from error
    if accelerator.num_processes != expected:
        raise UserError(
            f"{expected} processes were requested, but this one finds {accelerator.num_processes}: start several "
            f"with `torchrun --nproc-per-node {expected} --no-python sddpm train ...`"
        )
    return accelerator


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0").strip() in ("", "0")


def _expected_processes() -> int:
    """The number that torchrun sets in WORLD_SIZE. Raises `UserError` if it is not a number."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"WORLD_SIZE must be the number of processes, as torchrun sets it, not {text!r}")
    return int(text)
