"""Python and NumPy values of a column as an Arrow array, without a detour over Python lists for frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa


def column_of(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """`values` (None: null) as an array of `kind`; lists of lists may be given as 2-D NumPy arrays."""
    if not (pa.types.is_list(kind) and pa.types.is_list(kind.value_type)):
        return pa.array(values, kind)
    given = [value for value in values if value is not None]
    rows = sum(len(value) for value in given)
    flat = np.concatenate([np.ravel(value) for value in given]) if given else np.empty(0, np.float32)
    widths = [value.shape[1] for value in given for _ in range(len(value))]
    inner = pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(widths, dtype=np.int32)]).astype(np.int32)),
        pa.array(flat, kind.value_type.value_type),
    )
    assert len(inner) == rows
    lengths = [0 if value is None else len(value) for value in values]
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int32)]).astype(np.int32)
    missing = pa.array([value is None for value in values], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), inner, type=kind, mask=missing)
