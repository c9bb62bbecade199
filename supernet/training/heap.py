"""Memory of a process that trains: kept for the next step instead of given back after each."""

from __future__ import annotations

import ctypes
import platform

LARGEST_KEPT = 32 * 2**20
"""Bytes of the largest tensor whose memory is kept; glibc takes no more."""

KEPT = 512 * 2**20
"""Bytes at the end of the heap that are kept while nothing uses them."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of ``mallopt``, as in glibc's ``malloc.h``."""


def keep_memory() -> bool:
    """Let this process keep the memory of feature maps that it frees, until it ends.

    By default glibc hands memory of this size back to the system, which fills it with zeros page by
    page when the next step asks for it: a tenth of a step of a network of few KiB on one core.

    Returns:
        whether it is so now; False where the C library is another than glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(_M_TRIM_THRESHOLD, KEPT))
