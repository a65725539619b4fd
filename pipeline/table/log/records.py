"""The files of a table, as its log names them: a file counts once a record of it is there.

    files/<run id>/<task>.jsonl    what one write task wrote, a file a line; empty: it may not count any more
    files/<run id>/*.pending       names of files that somebody is about to write or to remove
    files/<run id>.jsonl           all files of a run that is over

A task's record is created once, by whoever comes first: the task, which commits its files, or the next job on
the table, which withdraws what a dead job left. So no file counts that was taken away meanwhile, and none is
taken away that counts. Records go when their run has its summary: then nobody commits to it any more. A file
that neither a record nor a pending note names is not ours.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from pydantic import ConfigDict, with_config

from pipeline import strict_json
from pipeline.errors import JobError
from pipeline.storage import Storage, is_remote, join

FORMAT = 2  # of the log, as its `table.json` says
_THREADS = 16  # storage far away answers slowly, but many at once
_LOG = logging.getLogger(__name__)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class FileRecord:
    """One data file, and what counts of it.

    Attributes:
        errors: rows that are errors.
        shards: rows of each shard.
        undelivered: those of them whose audio storage did not deliver, to be tried again.
        missing: shards that the task has not all rows of, since storage did not deliver them, and why.
    """

    run_id: str
    file: str
    rows: int = 0
    bytes: int = 0
    errors: int = 0
    undelivered: int = 0
    shards: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> FileRecord:
        """Raises ValueError for what is no record."""
        return strict_json.loads(text, cls)

    def to_json(self) -> str:
        return json.dumps(asdict(self))  # ASCII: one line, whatever a name holds

    @property
    def task(self) -> str:
        """The write task whose record names the file: `<attempt>-<index>`."""
        return task_of(self.run_id, self.file)


def file_name(run_id: str, task: str, execution: str, *, errors: bool = False) -> str:
    """No two executions of a task share a name, and rows that are errors have a file of their own."""
    return f"{run_id}-{task}-{execution}{'-errors' if errors else ''}.parquet"


def task_of(run_id: str, file: str) -> str:
    return "-".join(file.removeprefix(f"{run_id}-").removesuffix(".parquet").split("-")[:2])


class Records:
    """The records of one table. Only tasks commit; all else needs the table's lock.

    Attributes:
        home: of the log.
        folder: of the records.
        workshop: where local files lie until they are whole.
    """

    def __init__(self, output: str, home: str, storage: Storage) -> None:
        self.output, self.home, self.storage = output, home, storage
        self.folder, self.workshop = join(home, "files"), join(home, "tmp")

    # What counts

    def committed(self) -> list[FileRecord]:
        """All files, in the order of their names; whole without the lock too.

        Merged records are listed and read last: what `merge` takes away meanwhile, before it is listed or
        before it is read, is found among them.
        """
        below = self.listed()
        merged = {uri for uri in below if self.is_merged(uri)}
        texts = read_texts([uri for uri in below if uri not in merged], self.storage)
        merged |= {uri for uri in self.storage.list_files(self.folder) if uri.endswith(".jsonl")}
        texts |= read_texts(sorted(merged), self.storage)
        found = {record.file: record for uri, text in texts.items() for record in parse(uri, text)}
        return sorted(found.values(), key=lambda record: record.file)

    def listed(self, ending: str = ".jsonl") -> list[str]:
        """All files of records, or those of another ending."""
        return [uri for uri in self.storage.list_files(self.folder, recursive=True) if uri.endswith(ending)]

    def is_merged(self, uri: str) -> bool:
        """Whether a file has the records of a run that is over, not those of a task."""
        return uri.rsplit("/", 1)[0] == self.folder

    def of_task(self, run_id: str, task: str) -> list[FileRecord] | None:
        """What a task committed, none if it was withdrawn; None where it did neither yet."""
        uri = self._task_uri(run_id, task)
        if self.storage.exists(uri):
            return self._read(uri)
        return [record for record in self._read(self._merged_uri(run_id)) if record.task == task] or None

    # How a task writes

    def intend(self, run_id: str, files: Sequence[str]) -> str:
        """Notes files that are about to be written or removed; the note, to be removed afterwards."""
        note = join(self.folder, run_id, f"{uuid.uuid4().hex}.pending")
        self.storage.write_bytes(note, json.dumps(files).encode())
        return note

    def forget(self, note: str, files: Iterable[str] = ()) -> None:
        """Removes files that were never committed, and then a note."""
        for file in files:
            self.storage.remove(join(self.output, file))
        self.storage.remove(note)

    def commit(self, run_id: str, task: str, written: Sequence[FileRecord]) -> list[FileRecord]:
        """Makes the files of a task count, unless another execution of it came first; those that do.

        Raises:
            JobError: another job took over the table and withdrew the task.
        """
        own = self._task_uri(run_id, task)
        if self.storage.create(own, _lines(written)) and self.storage.exists(self._summary_uri(run_id)):
            self.storage.remove(own)  # too late: what counts of the run is merged
        held = self.of_task(run_id, task) or []
        counting = {record.file for record in held}
        for record in written:
            if record.file not in counting:
                self.storage.remove(join(self.output, record.file))
        if not held:
            raise JobError(f"{self.output}: another job took over this table; this run writes no more.")
        return held

    # What the holder of the lock does

    def sweep(self, mine: Callable[[str], bool] = lambda run_id: True) -> None:
        """Removes files that dead jobs noted and that no record names.

        Args:
            mine: whether nobody else may work on a run of this id.
        """
        for note, files in self.notes():
            run_id = note.split("/")[-2]
            if mine(run_id):
                self.forget(note, [file for file in files if not self._counts(run_id, file)])
                self.storage.remove_empty_folder(join(self.folder, run_id))

    def notes(self) -> Iterator[tuple[str, list[str]]]:
        """Each pending note with the files that it names; one that cannot be read names none."""
        for note, text in read_texts(self.listed(".pending"), self.storage).items():
            try:
                files = strict_json.loads(text, list[str])
            except ValueError:
                files = ["/"]
            if any("/" in file for file in files):
                _LOG.warning("%s is damaged: what it names is left alone", note)
            else:
                yield note, files

    def replace(self, old: FileRecord, write: Callable[[str], FileRecord | None]) -> None:
        """Puts another file, or none, in the place of one, which is removed; at each moment one counts.

        Args:
            write: writes the file of this name; None: nothing is left to write.
        """
        name = file_name(old.run_id, old.task, uuid.uuid4().hex[:8], errors=old.errors == old.rows)
        note = self.intend(old.run_id, [old.file, name])
        new = write(name)
        uri = self._only_uri(old)
        left = [record for record in self._read(uri) if record.file != old.file]
        self.write(uri, [*left, *([new] if new else [])])
        self.forget(note, [old.file])
        self.storage.remove_empty_folder(join(self.folder, old.run_id))

    def _only_uri(self, record: FileRecord) -> str:
        """Where the record stands: where a kill left it in two places, from now on in one."""
        own, merged = self._task_uri(record.run_id, record.task), self._merged_uri(record.run_id)
        if not (held := self._read(own)):
            return merged
        if not self.storage.exists(merged):
            return own
        both = {record.file: record for record in [*self._read(merged), *held]}
        self.write(merged, both.values())
        self.write(own, ())  # it stays: nobody is to create it again
        return merged

    def merge(self, run_id: str, adopted: Iterable[FileRecord] = ()) -> list[str]:
        """Puts all records of a run that is over into one file; `adopted`: of files that had none.

        Returns:
            What holds them besides: to be removed (`remove`) once the run has its summary.
        """
        own = [uri for uri in self.storage.list_files(join(self.folder, run_id)) if uri.endswith(".jsonl")]
        found = [record for uri, text in read_texts(own, self.storage).items() for record in parse(uri, text)]
        # What was merged before is read by its name: no listing that comes late may cost a line.
        merged = {record.file: record for record in [*self._read(self._merged_uri(run_id)), *found, *adopted]}
        if merged:
            self.write(self._merged_uri(run_id), merged.values())
        return own

    def remove(self, run_id: str, merged: Iterable[str]) -> None:
        """Removes records that stand among the merged ones."""
        for uri in merged:
            self.storage.remove(uri)
        self.storage.remove_empty_folder(join(self.folder, run_id))

    def unmerged_runs(self) -> set[str]:
        """Runs with records that are not merged."""
        return {uri.split("/")[-2] for uri in self.listed() if not self.is_merged(uri)}

    def write(self, uri: str, found: Iterable[FileRecord]) -> None:
        """Puts these records in the place of those of a file."""
        self.storage.write_bytes(uri, _lines(found))

    def _counts(self, run_id: str, file: str) -> bool:
        """Whether a record names the file. It is asked by name, not by a listing, and withdraws the task if
        none is there: then none can come any more."""
        task = task_of(run_id, file)
        held = self.of_task(run_id, task)
        if held is None and not self.storage.create(self._task_uri(run_id, task), b""):
            held = self.of_task(run_id, task)
        names = {record.file for record in [*(held or []), *self._read(self._merged_uri(run_id))]}
        return file in names

    def _read(self, uri: str) -> list[FileRecord]:
        data = self.storage.read_bytes_or_none(uri)
        return [] if data is None else parse(uri, data.decode(errors="replace"))

    def _merged_uri(self, run_id: str) -> str:
        return join(self.folder, f"{run_id}.jsonl")

    def _summary_uri(self, run_id: str) -> str:
        return join(self.home, f"{run_id}.json")

    def _task_uri(self, run_id: str, task: str) -> str:
        return join(self.folder, run_id, f"{task}.jsonl")


def parse(uri: str, text: str) -> list[FileRecord]:
    """The records of one file of the log; damaged lines are told of, and mended by `repair`."""
    found, damaged = [], 0
    for line in text.splitlines():
        try:
            found.append(FileRecord.from_json(line))
        except ValueError:
            damaged += 1
    if damaged:
        _LOG.warning("%s: %d lines of %d are damaged", uri, damaged, damaged + len(found))
    return found


def read_texts(uris: Sequence[str], storage: Storage) -> dict[str, str]:
    """Small files, side by side where storage is far away; those that are gone since are left out."""
    with ThreadPoolExecutor(_THREADS if uris and is_remote(uris[0]) else 1) as threads:
        found = zip(uris, threads.map(storage.read_bytes_or_none, uris), strict=True)
        return {uri: data.decode(errors="replace") for uri, data in found if data is not None}


def _lines(records: Iterable[FileRecord]) -> bytes:
    return "".join(f"{record.to_json()}\n" for record in records).encode()
