"""TableSink: a Ray Data `Datasink`; a write task writes its rows, and then their record."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from ray.data import Datasink
from ray.data.block import Block, BlockAccessor
from ray.data.datasource import WriteResult

from pipeline.engine.run_state import Report
from pipeline.table.log.writer import TableWriter, Written


class TableSink(Datasink[Written]):
    """Rows become files of at least `rows_per_file` rows, but for the last one.

    Attributes:
        written: what all tasks wrote, once the write is over.
    """

    def __init__(self, writer: TableWriter, rows_per_file: int, report: Report) -> None:
        self._writer, self._rows_per_file, self._report = writer, rows_per_file, report
        self.written = Written([], {})

    @property
    def min_rows_per_write(self) -> int:
        return self._rows_per_file

    def write(self, blocks: Iterable[Block], ctx: Any) -> Written:
        """A task that Ray runs again has its index again, and so its record."""
        started = time.perf_counter()
        tables = (BlockAccessor.for_block(block).to_arrow() for block in blocks)
        written = self._writer.write(tables, ctx.task_idx)
        self._report("seconds", time.perf_counter() - started)
        return written

    def on_write_complete(self, write_result: WriteResult[Written]) -> None:
        for written in write_result.write_returns:
            self.written.files.extend(written.files)
            self.written.undelivered.update(written.undelivered)
