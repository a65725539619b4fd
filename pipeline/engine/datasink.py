"""TableSink: a Ray Data `Datasink`; a write task writes its rows, and then their record."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from ray.data import Datasink
from ray.data.block import Block, BlockAccessor
from ray.data.datasource import WriteResult

from pipeline.engine.counter import Report
from pipeline.table.log.records import FileRecord
from pipeline.table.log.writer import TableWriter


class TableSink(Datasink[list[FileRecord]]):
    """Rows become files of at least `rows_per_file` rows, but for the last one.

    Attributes:
        written: the records of all files, once the write is over.
    """

    def __init__(self, writer: TableWriter, rows_per_file: int, report: Report) -> None:
        self._writer, self._rows_per_file, self._report = writer, rows_per_file, report
        self.written: list[FileRecord] = []

    @property
    def min_rows_per_write(self) -> int:
        return self._rows_per_file

    def write(self, blocks: Iterable[Block], ctx: Any) -> list[FileRecord]:
        """A task that Ray runs again has its index again, and so its record."""
        started = time.perf_counter()
        tables = (BlockAccessor.for_block(block).to_arrow() for block in blocks)
        records = self._writer.write(tables, ctx.task_idx)
        self._report("seconds", time.perf_counter() - started)
        return records

    def on_write_complete(self, write_result: WriteResult[list[FileRecord]]) -> None:
        self.written = [record for records in write_result.write_returns for record in records]
