"""Padding rules that the feature extractor and the tokenizer share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from w2vbert.arrays import round_up

NO_LIMIT = int(1e30)  # how published files write that there is no model_max_length

Padding = bool | Literal["longest", "max_length", "do_not_pad"]


def columns(batch: Mapping[str, Any] | Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """{key: [value of each row]}, from that or from a mapping for each row, as data loaders have it.

    Raises:
        ValueError: there are no rows, or nothing under `name`.
    """
    if not isinstance(batch, Mapping):
        keys = batch[0].keys() if batch else ()
        batch = {key: [row[key] for row in batch] for key in keys}
    if name not in batch:
        raise ValueError(f"nothing to pad: no {name} were given, only {', '.join(batch) or 'nothing'}")
    return batch


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


def truncated_length(
    truncation: bool | str, max_length: int, padding: Padding, multiple: int | None
) -> int | None:
    """Where to cut; None: nowhere.

    Raises:
        ValueError: an unknown `truncation`, or a length that padding could not keep to.
    """
    if truncation is False or truncation == "do_not_truncate" or max_length >= NO_LIMIT:
        return None
    if truncation is not True and truncation not in ("longest_first", "only_first", "only_second"):
        raise ValueError(f"truncation must be True, False or 'longest_first', not {truncation!r}")
    if padding not in (False, "do_not_pad") and multiple and max_length % multiple:
        raise ValueError(f"max_length {max_length} is no multiple of pad_to_multiple_of {multiple}")
    return max_length


def pad_to(array: np.ndarray[Any, Any], length: int | None, value: float, side: str) -> np.ndarray[Any, Any]:
    """(n, ...) to (length, ...) with `value` on one side; what is long enough stays."""
    missing = 0 if length is None else length - len(array)
    if missing <= 0:
        return array
    before_after = (missing, 0) if side == "left" else (0, missing)
    return np.pad(array, [before_after] + [(0, 0)] * (array.ndim - 1), constant_values=value)
