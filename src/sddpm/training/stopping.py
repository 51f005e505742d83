"""SIGINT and SIGTERM: finish the step, write a checkpoint, stop; at once at the second signal. SIGHUP, which a terminal
sends when it goes away, stops nothing."""

import os
import signal
import threading
from types import FrameType
from typing import Any


class StopRequests:
    """Inside its `with` block the first SIGINT or SIGTERM is only noted in `received`; the second ends the process.

    With several processes repetitions mean nothing: the launcher passes on what the terminal has sent already.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequests":
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
            if hasattr(signal, "SIGHUP"):  # not on Windows
                self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None and os.environ.get("WORLD_SIZE", "1").strip() in ("", "1"):
            raise SystemExit(128 + number)
        self.received = signal.Signals(number).name
