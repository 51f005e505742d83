"""Failure of a command: one line on stderr, and an exit code for the kind of failure."""

import errno
import os
import signal
import sys
import tempfile
import traceback
from types import FrameType

from sddpm.errors import UserError, out_of_memory

BAD_INPUT, UNEXPECTED, INTERRUPTED = 2, 1, 130
# Errors of the system because of its input or missing resources: not faults of this package.
_SYSTEM_ERRORS = (
    *("EACCES", "EPERM", "ENOENT", "ENOTDIR", "EISDIR", "ENAMETOOLONG", "ELOOP", "EROFS", "ENOSPC", "EDQUOT", "EFBIG"),
    *("EMFILE", "ENFILE", "EIO", "ENOMEM", "ENOTEMPTY", "ESTALE", "EBUSY", "ETXTBSY", "ENODEV", "ENXIO"),
)
_OF_THE_SYSTEM = {getattr(errno, name) for name in _SYSTEM_ERRORS if hasattr(errno, name)}


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP end the command as Ctrl-C does, so that incomplete files are removed."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows does not have the second
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def fail(error: BaseException) -> int:
    """Print the reason of the failure to stderr. Returns the exit code."""
    if isinstance(error, KeyboardInterrupt):
        _finish_bars()
        return INTERRUPTED
    if isinstance(error, UserError):
        return _say(str(error), BAD_INPUT)
    if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
        where = f"{error.filename}: " if error.filename is not None else ""
        return _say(f"{where}{error.strerror}", BAD_INPUT)
    if out_of_memory(error):
        return _say("this machine has too little memory: try fewer or smaller images at a time", BAD_INPUT)
    report = _write_report(error)
    reason = " ".join(str(error).split())[:200]
    return _say(
        f"unexpected {type(error).__name__}{': ' if reason else ''}{reason}; this is a bug in sddpm, and {report}",
        UNEXPECTED,
    )


def _say(text: str, code: int) -> int:
    _finish_bars()
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    try:
        print(f"error: {line}", file=sys.stderr)
    except (OSError, ValueError):  # stderr is closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return code


def _finish_bars() -> None:
    """End the line of every progress bar that is still shown."""
    if "tqdm" in sys.modules:
        for bar in list(getattr(sys.modules["tqdm"].tqdm, "_instances", ())):
            bar.leave = True
            bar.close()


def _write_report(error: BaseException) -> str:
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="sddpm-error-", suffix=".txt", delete=False, encoding="utf-8", errors="replace"
        ) as file:
            traceback.print_exception(error, file=file)
        return f"its traceback is in {file.name}"
    except OSError:
        return "its traceback could not be written"
