"""Tables as rows of lists: nothing is lost, nothing large is copied."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.annotate.batches import as_batch, gather, rows_of

SCHEMA = pa.schema(
    [
        ("features", pa.large_binary()),
        ("windows", pa.list_(pa.struct([("start", pa.int32())]))),
        ("error", pa.struct([("code", pa.string())])),
        ("frames", pa.int32()),
    ]
)
ROWS = st.fixed_dictionaries(
    {
        "features": st.none() | st.binary(max_size=20),
        "windows": st.none() | st.lists(st.fixed_dictionaries({"start": st.integers(0, 9)}), max_size=3),
        "error": st.none() | st.fixed_dictionaries({"code": st.sampled_from(["a", "b"])}),
        "frames": st.none() | st.integers(0, 9),
    }
)
TABLES = st.lists(st.lists(ROWS, min_size=1, max_size=4), min_size=1, max_size=6)


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


@given(TABLES, st.integers(0, 400))
def test_all_rows_come_back_in_order(rows: list[list[dict[str, Any]]], size: int) -> None:
    batches = list(gather(map(table, rows), size))
    assert all(batch.num_rows == 1 for batch in batches)
    # As an engine hands them on: laid together, and one row at a time.
    joined = pa.concat_tables(batches).combine_chunks()
    back = [rows_of(joined.slice(number, 1)) for number in range(len(batches))]
    assert all(one.schema == SCHEMA for one in back)
    assert [row for one in back for row in one.to_pylist()] == [row for some in rows for row in some]
    for one in back[:-1]:
        assert one.nbytes > size or one.num_rows < sum(map(len, rows))


def test_a_long_recording_is_alone_and_not_copied() -> None:
    short, long = table([{"features": b"x"}] * 3), table([{"features": b"y" * 1000}])
    batches = list(gather([short, long, short, short], 500))
    assert [rows_of(batch).num_rows for batch in batches] == [3, 1, 6]
    before, after = (one["features"].chunk(0).buffers()[2] for one in (long, rows_of(batches[1])))
    assert after.address == before.address


def test_one_row() -> None:
    rows = [{"features": None, "windows": [], "error": {"code": "a"}, "frames": 1}]
    assert rows_of(as_batch(table(rows))).to_pylist() == rows
