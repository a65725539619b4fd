"""The files of a table, each with a small record of its own, written after the file is whole.

    _run/files/<run id>/<file's stem>.json    one file, written by the task that wrote it
    _run/files/<run id>.jsonl                 all files of a run that is over, one a line

A record is `pending` (somebody intends to write the file, or to remove it) or `committed`. What no committed
record names does not count; what a pending one names may be removed; a file that no record names is not ours.
Where a file has a line and a record of its own, the record counts: it is the younger one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.storage import Storage, is_remote, join

RUN_FOLDER = "_run"  # below the output: all that is no data file
PENDING, COMMITTED = "pending", "committed"
FORMAT = 1  # of the records, as `_run/table.json` says
_THREADS = 16  # storage far away answers slowly, but many at once
_GROUP_ROWS = 10_000
_GROUP_BYTES = 64 << 20


@dataclass(frozen=True)
class FileRecord:
    """One data file, and what counts of it: rows, bytes, rows that are errors, rows of each shard."""

    run_id: str
    file: str
    state: str = PENDING
    rows: int = 0
    bytes: int = 0
    errors: int = 0
    shards: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> FileRecord:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(asdict(self))  # ASCII: one line, whatever a name holds

    @property
    def committed(self) -> bool:
        return self.state == COMMITTED


class Records:
    """The records of one table. Whoever removes or merges must hold the table's lock."""

    def __init__(self, output: str, storage: Storage) -> None:
        self.output, self.storage = output, storage
        self.home = join(output, RUN_FOLDER, "files")

    def all(self) -> list[FileRecord]:
        """Of all files, in the order of their names; whole without the lock too.

        Merged records are listed and read last: what `merge` takes away meanwhile, before it is listed or
        before it is read, is found among them.
        """
        uris = self.storage.list_files(self.home, recursive=True)
        single = read_texts([uri for uri in uris if uri.endswith(".json")], self.storage).values()
        merged = read_texts(self.storage.list_files(self.home), self.storage).values()
        lines = [line for text in merged for line in text.splitlines()]
        records = map(FileRecord.from_json, [*lines, *single])
        found = {(record.run_id, record.file): record for record in records}
        return sorted(found.values(), key=lambda record: record.file)

    def committed(self) -> list[FileRecord]:
        return [record for record in self.all() if record.committed]

    def get(self, run_id: str, file: str) -> FileRecord | None:
        """The record of a file: its own, else its line among the merged ones."""
        own = self._own(run_id, file)
        return own or next((line for line in self._merged(run_id) if line.file == file), None)

    def intend(self, run_id: str, file: str) -> bool:
        """Says that somebody will write a file; False, and nothing done, where it has a record of its own."""
        return self.storage.create(self._uri(run_id, file), FileRecord(run_id, file).to_json().encode())

    def put(self, record: FileRecord) -> None:
        self.storage.write_bytes(self._uri(record.run_id, record.file), record.to_json().encode())

    def remove(self, record: FileRecord) -> None:
        """Removes a data file, and then its record; a kill in between leaves it pending."""
        self.put(FileRecord(record.run_id, record.file))
        self._remove_pending(record.run_id, record.file)

    def withdraw(self, record: FileRecord) -> None:
        """Removes a file that its writer may not commit, unless the same task committed it elsewhere."""
        own = self._own(record.run_id, record.file)
        if own is not None and own.committed:
            return
        if all(line.file != record.file for line in self._merged(record.run_id)):
            self.storage.remove(join(self.output, record.file))
        self.storage.remove(self._uri(record.run_id, record.file))

    def sweep(self, run_id: str | None = None) -> None:
        """Removes the files that were never committed: those that a pending record names, looked at again.

        Args:
            run_id: only those of one run.
        """
        for record in self.all():
            if not record.committed and run_id in (None, record.run_id):
                self._remove_pending(record.run_id, record.file)

    def merge(self, run_id: str) -> None:
        """Puts what is committed of a run that is over into one file; pending ones are swept before."""
        single = read_texts(self.storage.list_files(join(self.home, run_id)), self.storage).values()
        own = [record for record in map(FileRecord.from_json, single) if record.committed]
        if not own:
            return
        # What was merged before is read by its name: no listing that comes late may cost a line.
        merged = {record.file: record for record in [*self._merged(run_id), *own]}
        self._write(run_id, list(merged.values()))
        for record in own:
            self.storage.remove(self._uri(run_id, record.file))
        self.storage.remove_empty_folder(join(self.home, run_id))

    def adopt(self, records: Iterable[FileRecord]) -> None:
        """Records of files that were written without."""
        by_run: dict[str, list[FileRecord]] = {}
        for record in records:
            if record.committed:
                by_run.setdefault(record.run_id, []).append(record)
            else:
                self.put(record)
        for run_id, found in by_run.items():
            self._write(run_id, found)

    def _remove_pending(self, run_id: str, file: str) -> None:
        record = self._own(run_id, file)
        if record is None or record.committed:
            return
        self.storage.remove(join(self.output, file))
        merged = self._merged(run_id)
        left = [line for line in merged if line.file != file]
        if len(left) < len(merged):  # the line would count again once the file's own record is gone
            self._write(run_id, left)
        self.storage.remove(self._uri(run_id, file))
        self.storage.remove_empty_folder(join(self.home, run_id))

    def _own(self, run_id: str, file: str) -> FileRecord | None:
        data = self.storage.read_bytes_or_none(self._uri(run_id, file))
        return None if data is None else FileRecord.from_json(data.decode())

    def _merged(self, run_id: str) -> list[FileRecord]:
        data = self.storage.read_bytes_or_none(self._merged_uri(run_id)) or b""
        return [FileRecord.from_json(line) for line in data.decode().splitlines()]

    def _write(self, run_id: str, records: Sequence[FileRecord]) -> None:
        text = "".join(f"{record.to_json()}\n" for record in records)
        self.storage.write_bytes(self._merged_uri(run_id), text.encode())

    def _merged_uri(self, run_id: str) -> str:
        return join(self.home, f"{run_id}.jsonl")

    def _uri(self, run_id: str, file: str) -> str:
        return join(self.home, run_id, f"{file.removesuffix('.parquet')}.json")


@dataclass(frozen=True)
class TableWriter:
    """Writes the files of one start of a run; picklable, the write tasks have it.

    Attributes:
        attempt: new at each start of a driver, so that a run that goes on uses no name twice.
        check: raises where the run may not write any more; asked before a file is begun and committed.
    """

    output: str
    storage: Storage
    schema: pa.Schema
    run_id: str
    attempt: str
    check: Callable[[], None] | None = None

    def write(self, tables: Iterable[pa.Table], index: int) -> FileRecord | None:
        """One file of these rows, whole or not at all; None, and no file, where there is no row.

        Args:
            index: of the task among those of this start; a task that comes again finds its file written.
        """
        records = Records(self.output, self.storage)
        file = f"{self.run_id}-{self.attempt}-{index:06}.parquet"
        held = records.get(self.run_id, file)
        if held is not None and held.committed:
            return held
        groups = row_groups(tables, self.schema)
        first = next(groups, None)
        if first is None:
            return None
        if self.check is not None:
            self.check()
        if not records.intend(self.run_id, file):  # the same task was killed, or wrote it meanwhile
            held = records.get(self.run_id, file)
            if held is not None and held.committed:
                return held
        record = write_file(records, file, chain([first], groups), self.schema, self.run_id)
        try:
            if self.check is not None:
                self.check()
        except BaseException:
            records.withdraw(record)
            raise
        records.put(record)
        return record


def read_texts(uris: Sequence[str], storage: Storage) -> dict[str, str]:
    """Small files, side by side where storage is far away; those that are gone since are left out."""
    with ThreadPoolExecutor(_THREADS if uris and is_remote(uris[0]) else 1) as threads:
        found = zip(uris, threads.map(storage.read_bytes_or_none, uris), strict=True)
        return {uri: data.decode() for uri, data in found if data is not None}


def write_file(
    records: Records, file: str, groups: Iterable[pa.Table], schema: pa.Schema, run_id: str
) -> FileRecord:
    """Writes one data file, visible once it is whole; its record, which is for the caller to put."""
    counts = _Counts()
    with records.storage.writing(join(records.output, file)) as handle:
        with pq.ParquetWriter(handle, schema, compression="zstd") as writer:
            for group in groups:
                writer.write_table(group, row_group_size=group.num_rows)
                counts.add(group)
        return counts.record(run_id, file, handle.tell())


def count_file(run_id: str, file: str, size: int, batches: Iterable[pa.RecordBatch]) -> FileRecord:
    """The record of a file that is there; `batches` have the columns `shard` and `error`."""
    counts = _Counts()
    for batch in batches:
        counts.add(batch)
    return counts.record(run_id, file, size)


class _Counts:
    """What counts of a file's rows."""

    def __init__(self) -> None:
        self.errors = 0
        self.shards: Counter[str] = Counter()

    def add(self, rows: pa.Table | pa.RecordBatch) -> None:
        self.errors += rows.num_rows - rows.column("error").null_count
        for entry in pc.value_counts(rows.column("shard")).to_pylist():
            self.shards[entry["values"]] += entry["counts"]

    def record(self, run_id: str, file: str, size: int) -> FileRecord:
        shards = dict(sorted(self.shards.items()))
        return FileRecord(run_id, file, COMMITTED, sum(shards.values()), size, self.errors, shards)


def row_groups(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows as tables of a size that reads well."""
    held: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        if not table.num_rows:
            continue
        same = table.schema.equals(schema, check_metadata=True)
        held.append(table if same else table.select(schema.names).cast(schema))
        rows, size = rows + table.num_rows, size + table.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.concat_tables(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.concat_tables(held)
