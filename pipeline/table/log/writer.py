"""How data files are written: whole or not at all, and then recorded."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import Code
from pipeline.storage import StorageError, join
from pipeline.table.log.records import FileRecord, Records, file_name

_GROUP_BYTES = 64 << 20


@dataclass(frozen=True)
class Layout:
    """How rows lie in a file.

    Attributes:
        group_rows: about so many make a row group.
        compression: of all columns, as Parquet knows it.
        dictionary: whether values that come often may be written once.
    """

    group_rows: int = 10_000
    compression: str = "zstd"
    dictionary: bool = True


USUAL = Layout()


@dataclass(frozen=True)
class Written:
    """What came of rows: the files that count, and shards that storage did not deliver, with the reason."""

    files: list[FileRecord]
    undelivered: dict[str, str]


NOTHING = Written([], {})


@dataclass(frozen=True)
class TableWriter:
    """Writes the files of one start of a run; picklable, the write tasks have it.

    Attributes:
        attempt: new at each start of a driver, so that a run that goes on uses no name twice.
        check: raises where the run may not write any more; asked before a file is begun and committed.
    """

    records: Records
    schema: pa.Schema
    run_id: str
    attempt: str
    check: Callable[[], None] = lambda: None
    layout: Layout = USUAL

    def rows_written(self) -> int:
        """Of all tasks of this start, by their records."""
        mine = (record for record in self.records.committed() if record.run_id == self.run_id)
        return sum(record.rows for record in mine if record.task.startswith(self.attempt))

    def write(self, tables: Iterable[pa.Table], index: int) -> Written:
        """A file of these rows, and one of those that are errors; none where there is no row.

        Args:
            index: of the task among those of this start; a task that comes again finds its files written.
        """
        records = self.records
        task = f"{self.attempt}-{index:06}"
        held = records.of_task(self.run_id, task)
        if held:
            return Written(held, {shard: why for record in held for shard, why in record.missing.items()})
        execution = uuid.uuid4().hex[:8]
        names = [file_name(self.run_id, task, execution, errors=errors) for errors in (False, True)]
        self.check()
        note = records.intend(self.run_id, names)
        failed: list[pa.Table] = []
        missing: dict[str, str] = {}
        sound = _sound(row_groups(tables, self.schema, self.layout.group_rows), failed, missing)
        try:
            written = [
                write_file(records, name, rows, self.schema, self.run_id, self.layout)
                for name, rows in zip(names, (sound, failed), strict=True)
            ]
            self.check()
        except BaseException:
            with suppress(StorageError):  # else the note says what the next start removes
                records.forget(note, names)
            raise
        kept = [replace(record, missing=missing) for record in written if record is not None]
        counting = records.commit(self.run_id, task, kept) if kept else []
        records.forget(note)
        return Written(counting, missing)


def _sound(groups: Iterable[pa.Table], failed: list[pa.Table], missing: dict[str, str]) -> Iterator[pa.Table]:
    """The rows that are no errors. Those that are go to `failed`: in files of their own they are few to read
    and to write again when they are retried. What stands for an undelivered shard goes to `missing`."""
    for group in groups:
        is_error = group["error"].is_valid()
        if (errors := group.filter(is_error)).num_rows:
            late = [error["code"] == Code.UNDELIVERED for error in errors["error"].to_pylist()]
            for row in errors.filter(pa.array(late)).select(["shard", "error"]).to_pylist():
                missing[row["shard"]] = row["error"]["message"]
            failed.append(errors.filter(pc.invert(pa.array(late))))
        yield group.filter(pc.invert(is_error))


def write_file(
    records: Records,
    file: str,
    groups: Iterable[pa.Table],
    schema: pa.Schema,
    run_id: str,
    layout: Layout = USUAL,
) -> FileRecord | None:
    """Writes one data file, visible once it is whole; its record, or None, and no file, where no row is."""
    filled = (group for group in groups if group.num_rows)
    first = next(filled, None)
    if first is None:
        return None
    counts = _Counts()
    with records.storage.writing(join(records.output, file), by_way_of=records.workshop) as handle:
        with pq.ParquetWriter(
            handle, schema, compression=layout.compression, use_dictionary=layout.dictionary
        ) as writer:
            for group in chain([first], filled):
                writer.write_table(group, row_group_size=group.num_rows)
                counts.add(group)
        return counts.record(run_id, file, handle.tell())


def count_file(run_id: str, file: str, size: int, batches: Iterable[pa.RecordBatch]) -> FileRecord:
    """The record of a file that is there; `batches` have the columns `shard`, `clip_id` and `error`."""
    counts = _Counts()
    for batch in batches:
        counts.add(batch)
    return counts.record(run_id, file, size)


class _Counts:
    """What counts of a file's rows."""

    def __init__(self) -> None:
        self.errors = self.undelivered = 0
        self.shards: Counter[str] = Counter()

    def add(self, rows: pa.Table | pa.RecordBatch) -> None:
        for entry in pc.value_counts(rows.column("shard")).to_pylist():
            self.shards[entry["values"]] += entry["counts"]
        failed = rows.filter(pc.is_valid(rows.column("error")))
        self.errors += failed.num_rows
        codes = [error["code"] for error in failed.column("error").to_pylist()]
        self.undelivered += codes.count(Code.UNREADABLE)

    def record(self, run_id: str, file: str, size: int) -> FileRecord:
        shards = dict(sorted(self.shards.items()))
        return FileRecord(run_id, file, sum(shards.values()), size, self.errors, self.undelivered, shards)


def row_groups(
    tables: Iterable[pa.Table], schema: pa.Schema, group_rows: int = Layout.group_rows
) -> Iterator[pa.Table]:
    """The rows as tables of a size that reads well."""
    held: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        if not table.num_rows:
            continue
        same = table.schema.equals(schema, check_metadata=True)
        held.append(table if same else table.select(schema.names).cast(schema))
        rows, size = rows + table.num_rows, size + table.nbytes
        if rows >= group_rows or size >= _GROUP_BYTES:
            yield pa.concat_tables(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.concat_tables(held)
