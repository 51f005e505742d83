"""Error messages for visitors."""

import logging

from sddpm.errors import UserError, out_of_memory

logger = logging.getLogger(__name__)


def in_a_line(error: BaseException) -> str:
    """One line with the reason; for a bug in the package the traceback goes to the log."""
    if isinstance(error, UserError):
        return str(error).replace("`", "")  # backticks mark names of options in the library
    if out_of_memory(error):
        return "This machine has too little memory: try fewer pictures at a time"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}"
    logger.error("a view failed", exc_info=error)
    return f"Unexpected {type(error).__name__}: {error}. This is a bug in sddpm; its traceback is in the terminal"
