"""Batches: tables of clips on their way to a model actor, each as one row whose columns are lists.

So an engine that hands out rows, a number at a time, hands out a whole table with each, and never cuts one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa


def gather(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Tables as batches, closed once they hold more than `size` bytes; a table beyond that is one alone."""
    held: list[pa.Table] = []
    for table in tables:
        if held and table.nbytes > size:  # a long recording, which is never copied
            yield as_batch(pa.concat_tables(held))
            held = []
        held.append(table)
        if sum(one.nbytes for one in held) > size:
            yield as_batch(pa.concat_tables(held))
            held = []
    if held:
        yield as_batch(pa.concat_tables(held))


def as_batch(table: pa.Table) -> pa.Table:
    """A table as one row of lists, without a copy where its columns are of one chunk."""
    ends = pa.array([0, table.num_rows], pa.int64())
    columns = [pa.LargeListArray.from_arrays(ends, _one_chunk(column)) for column in table.columns]
    return pa.Table.from_arrays(columns, names=table.column_names)


def rows_of(batch: pa.Table) -> pa.Table:
    """The table that a batch is, without a copy."""
    columns = [_one_chunk(column).flatten() for column in batch.columns]
    return pa.Table.from_arrays(columns, names=batch.column_names)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
