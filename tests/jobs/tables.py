"""Written tables, as rows by id, and when two of them are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.storage import Storage, StorageOptions

Row = dict[str, Any]


def log_of(output: Path) -> Path:
    """Where the log of a table lies."""
    return output.with_name(f"_{output.name}.runs")


def rows_at(output: str) -> dict[str, Row]:
    """In a bucket."""
    storage = Storage(StorageOptions().with_environment())
    rows = []
    for uri in storage.list_files(output):
        if uri.endswith(".parquet"):
            with storage.open(uri) as file:
                rows += pq.read_table(file).to_pylist()
    return _by_id(rows)


def rows_of(output: Path) -> dict[str, Row]:
    # Read by Python: pyarrow takes no path that is not UTF-8.
    files = [pa.BufferReader(file.read_bytes()) for file in sorted(output.glob("*.parquet"))]
    return _by_id([row for file in files for row in pq.ParquetFile(file).read().to_pylist()])


def _by_id(rows: list[Row]) -> dict[str, Row]:
    by_id = {row["clip_id"]: row for row in rows}
    assert len(by_id) == len(rows)
    return by_id


def assert_close(one: Any, other: Any, where: str) -> None:
    """Equal, but for floats, which may differ by 1e-4."""
    if isinstance(one, float) and isinstance(other, float):
        assert one == pytest.approx(other, abs=1e-4, rel=1e-4), where
    elif isinstance(one, list):
        assert len(one) == len(other), where
        if one and isinstance(one[0], float | list) and not isinstance(one[0], str):
            np.testing.assert_allclose(one, other, atol=1e-4, err_msg=where)
        else:
            for first, second in zip(one, other, strict=True):
                assert_close(first, second, where)
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_close(one[key], other[key], where)
    else:
        assert one == other, where
