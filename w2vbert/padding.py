"""Padding rules that the feature extractor and the tokenizer share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

Padding = bool | Literal["longest", "max_length", "do_not_pad"]


def padded_length(
    lengths: Sequence[int], padding: Padding, max_length: int | None, multiple: int | None
) -> int | None:
    """The length that every sequence shall have; None: the one it has.

    Raises:
        ValueError: an unknown `padding`, or "max_length" without `max_length`.
    """
    if padding is False or padding == "do_not_pad":
        return None
    if padding is True or padding == "longest":
        return round_up(max(lengths), multiple)
    if padding != "max_length":
        raise ValueError(
            f"padding must be True, False, 'longest', 'max_length' or 'do_not_pad', not {padding!r}"
        )
    if max_length is None:
        raise ValueError("padding='max_length' needs max_length")
    return round_up(max_length, multiple)


def round_up(length: int, multiple: int | None) -> int:
    """The smallest multiple of `multiple` that is not below `length`."""
    return -(-length // multiple) * multiple if multiple else length


def pad_to(array: np.ndarray[Any, Any], length: int | None, value: float, side: str) -> np.ndarray[Any, Any]:
    """(n, ...) to (length, ...) with `value` on one side; what is long enough stays."""
    missing = 0 if length is None else length - len(array)
    if missing <= 0:
        return array
    before_after = (missing, 0) if side == "left" else (0, missing)
    return np.pad(array, [before_after] + [(0, 0)] * (array.ndim - 1), constant_values=value)
