"""How the process treats memory that it has freed."""

from __future__ import annotations

import ctypes
import os


def keep_freed_memory(block: int = 1 << 30) -> bool:
    """Let glibc keep freed blocks of up to `block` bytes, and as much in all, for the next tensor.

    By default it may hand blocks of megabytes back to the kernel, and the next tensors of that
    size fault their pages in again, which can cost as much as a pass over them. Returns whether
    that was set: not under INVERSE_SCORE_KEEP_MEMORY=0, nor where the user tunes malloc by its own
    variables, nor with another C library.
    """
    own = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if own or os.environ.get("INVERSE_SCORE_KEEP_MEMORY") == "0" or not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Numbers of malloc.h: M_MMAP_THRESHOLD -3, M_TRIM_THRESHOLD -1. Older glibc takes 32 MiB.
    mapped = mallopt(-3, block) or mallopt(-3, min(block, 32 << 20))
    return bool(mapped and mallopt(-1, block))


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False
