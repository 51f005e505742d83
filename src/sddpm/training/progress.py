"""Progress display during a run: a bar on a terminal, occasional lines elsewhere."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from tqdm import tqdm

WEEK = 7 * 86400


def duration(seconds: float) -> str:
    """A time in words: "3.5 hours"."""
    for unit, name in ((WEEK, "weeks"), (86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} seconds"


class Stopwatch:
    """Seconds of training, excluding samples and checkpoints."""

    def __init__(self, before: float = 0.0):
        self._start = time.perf_counter() - before

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    @contextmanager
    def paused(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._start += time.perf_counter() - began


class LastingStream:
    """Standard output or error that never fails: if its reader is gone (closed pipe or terminal) or the disk is full,
    further output is dropped and the work continues."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except (OSError, ValueError):
            return False

    def __getattr__(self, name: str) -> Any:  # encoding, fileno, ...
        return getattr(self._stream, name)

    def _attempt(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except (OSError, ValueError):  # ValueError: a closed file
            with suppress(OSError, ValueError):  # Python flushes the remaining buffer when it exits
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


class Progress:
    """Loss, images/s and time left on stderr: a tqdm bar on a terminal, else one line per call of `report`."""

    def __init__(self, start: int, steps: int, shown: bool):
        self.steps, self.shown = steps, shown
        self._stream: Any = LastingStream(sys.stderr)
        self._bar = tqdm(
            total=steps, initial=start, unit="step", dynamic_ncols=True, smoothing=0.05, file=self._stream,
            disable=not (shown and self._stream.isatty()),
        )  # fmt: skip

    def advance(self) -> None:
        """Count one completed step."""
        self._bar.update()

    def report(self, step: int, loss: float, images_per_second: float, steps_per_second: float) -> None:
        """Show the mean loss and the speed since the last report."""
        if not self._bar.disable:
            self._bar.set_postfix_str(f"loss {loss:.4f}, {images_per_second:.0f} images/s", refresh=False)
        elif self.shown:
            left = tqdm.format_interval((self.steps - step) / steps_per_second)
            self.say(f"step {step}/{self.steps}, loss {loss:.4f}, {images_per_second:.0f} images/s, {left} left")

    def first(self, step: int, seconds: float, next_line: int, compiled: bool) -> None:
        """Print the time of this process's first step and the estimated time left."""
        left = (self.steps - step) * seconds
        about = "the next ones are faster" if compiled else f"at this speed {duration(left)} are left"
        self.say(f"step {step}/{self.steps} took {seconds:.3g} s, {about}; the next line follows at step {next_line}")
        if left >= 2 * WEEK and not compiled:
            self.say("warning: that is weeks: use a smaller config (sddpm list configs), fewer train.steps or a GPU")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self.shown:
            tqdm.write(line, file=self._stream)
            self._stream.flush()

    def close(self) -> None:
        """Close the bar; it stays on the screen."""
        self._bar.close()
