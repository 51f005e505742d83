"""SIGINT and SIGTERM: finish the step, write a checkpoint and stop; the second signal stops at once. SIGHUP, sent when
a terminal closes, is ignored."""

import os
import signal
import threading
from types import FrameType
from typing import Any


class StopRequests:
    """Inside its `with` block the first SIGINT or SIGTERM is only stored in `received`; the second one ends the
    process.

    With several processes repeated signals are ignored: the launcher forwards signals that the terminal already sent.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequests":
        if threading.current_thread() is threading.main_thread():  # handlers can only be set there
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
