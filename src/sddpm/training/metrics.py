"""metrics.jsonl: one JSON object per line; also tensorboard files, if installed."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sddpm.errors import UserError
from sddpm.files import atomic_path
from sddpm.opening.files import GIB, read_text

FILE_NAME = "metrics.jsonl"
MOST_BYTES = GIB  # about 200 bytes per line


def read_metrics(run_dir: str | Path) -> list[dict[str, Any]]:
    """The metrics of a run, oldest first; a last line truncated by a crash is skipped.

    Raises:
        UserError: the run has no metrics, or the file holds something else.
    """
    path = Path(run_dir) / FILE_NAME
    rows = []
    for number, line in enumerate(read_text(path, MOST_BYTES, "file of metrics").splitlines(), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(row, dict) or not _is_row(row):
            raise UserError(f"{path} holds no metrics: line {number} is {line[:60]}")
        rows.append(row)
    return rows


def _is_row(row: Mapping[str, Any]) -> bool:
    """Whether the values that are used later are numbers."""
    numbers = [row[key] for key in ("loss", "seconds", "epoch") if key in row]
    return type(row.get("step")) is int and all(type(number) in (int, float) for number in numbers)


class MetricsLog:
    """Appends to metrics.jsonl; a resumed run first deletes the lines after its start step."""

    def __init__(self, run_dir: Path, start: int, tensorboard: bool):
        self.path = run_dir / FILE_NAME
        kept = [row for row in read_metrics(run_dir) if row["step"] <= start] if self.path.exists() else []
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._board = _tensorboard(run_dir, start) if tensorboard else None

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; it has a "step". A full disk is a `UserError`."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error
        if self._board is not None:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(f"train/{name}", value, row["step"])

    def close(self) -> None:
        """Flush the tensorboard writer."""
        if self._board is not None:
            self._board.close()


def _tensorboard(run_dir: Path, start: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run_dir / "tensorboard"), purge_step=start + 1)
