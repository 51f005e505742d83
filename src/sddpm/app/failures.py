"""What to say to a visitor whose work failed."""

import logging

from sddpm.errors import UserError, out_of_memory

logger = logging.getLogger(__name__)


def in_a_line(error: BaseException) -> str:
    """One line on why; a fault of the package goes to the log with its traceback too."""
    if isinstance(error, UserError):
        return str(error).replace("`", "")  # which say what an option is called elsewhere
    if out_of_memory(error):
        return "This machine has too little memory for that: try fewer pictures at a time"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}"
    logger.error("a view failed", exc_info=error)
    return f"Unexpected {type(error).__name__}: {error}. This is a fault of sddpm; its traceback is in the terminal"
