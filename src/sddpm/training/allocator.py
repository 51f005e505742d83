"""CPU memory: make malloc keep large buffers, because every step needs them again."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def keep_large_buffers() -> None:
    """Keep freed buffers in the process. By default glibc returns those over 32 MiB to the system, which must then map
    them again, page by page, at every layer of every step. Does nothing with other C libraries."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
