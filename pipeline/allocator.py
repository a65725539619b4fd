"""Gives memory that the C library holds on to back to the system."""

from __future__ import annotations

import ctypes

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; elsewhere there is nothing to do


def trim() -> None:
    """Returns freed memory.

    Activations of packs that differ a little in size leave the heap full of holes, and it would grow by a
    third over some hundred packs.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)
