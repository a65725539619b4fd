"""TableSink: a Ray Data `Datasink`; a write task writes one file of the table, and then its record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ray.data import Datasink
from ray.data.block import Block, BlockAccessor
from ray.data.datasource import WriteResult

from pipeline.table.records import FileRecord, TableWriter


class TableSink(Datasink[FileRecord | None]):
    """Rows become files of at least so many rows, but the last one.

    Attributes:
        written: the records of all files, once the write is over.
    """

    def __init__(self, writer: TableWriter, rows_per_file: int) -> None:
        self._writer, self._rows_per_file = writer, rows_per_file
        self.written: list[FileRecord] = []

    @property
    def min_rows_per_write(self) -> int:
        return self._rows_per_file

    def write(self, blocks: Iterable[Block], ctx: Any) -> FileRecord | None:
        """A task that Ray runs again has its index again, and so the name of its file."""
        tables = (BlockAccessor.for_block(block).to_arrow() for block in blocks)
        return self._writer.write(tables, ctx.task_idx)

    def on_write_complete(self, write_result: WriteResult[FileRecord | None]) -> None:
        self.written = [record for record in write_result.write_returns if record is not None]
