"""Memory on the CPU: let malloc keep the large buffers that every step needs again."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def keep_large_buffers() -> None:
    """Have freed buffers stay with the process. glibc returns those over 32 MiB to the system, which then faults them
    in anew, page by page, at every layer of every step. Does nothing where the C library is another."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
