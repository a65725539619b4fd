"""Small helpers on arrays and numbers that the rooms share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def runs(flags: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The runs of True.

    Args:
        flags: (n,) bool.

    Returns:
        starts, stops: (runs,); a run is flags[start:stop].
    """
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    return edges[::2], edges[1::2]


def round_up(number: int, multiple: int | None) -> int:
    """The smallest multiple of `multiple` that is not below `number`; None or 0: the number itself."""
    return -(-number // multiple) * multiple if multiple else number
