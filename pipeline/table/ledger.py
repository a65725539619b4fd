"""What an output already holds. The output is the ledger: its rows say which clips are done.

Beside the Parquet files, under `_run/`:

    table.json             model digests, settings and passthrough columns that all runs of the output share
    lock.json              who writes the table just now (see `pipeline.table.lock`)
    files/                 which files the table has (see `pipeline.table.records`)
    shards/, shard_counts/ what runs set out to read, and how far they came (see `pipeline.table.plans`)
    <run id>.json          the run's summary; it exists when the run is over

A run is logical: a killed one is continued under its id.

A shard read to its end is complete: under a condition (`--where`) for runs with the same one, without one for
all. Runs count in the order of their ids: one that annotates errors again takes back what earlier ones
completed, until it has read the shard to its end itself.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import strict_json
from pipeline.corpus.clips import Shard
from pipeline.errors import JobError
from pipeline.storage import Storage, StorageError, join
from pipeline.table.lock import Lock, check_lock, lock_uri
from pipeline.table.plans import (
    PartOfShard,
    Plan,
    PlannedShard,
    Plans,
    Work,
    complete_shards,
    continued_run,
    write_shard_counts,
)
from pipeline.table.reader import (
    data_files,
    files_of_earlier_version,
    is_in_run_folder,
    read_identity,
    read_ids,
    table_format,
)
from pipeline.table.records import FORMAT, RUN_FOLDER, FileRecord, Records, TableWriter, read_texts

_LOG = logging.getLogger(__name__)
_TABLE, _OVERWRITE = "table.json", "overwrite.json"
_NO_SUMMARY = (_TABLE, _OVERWRITE, "lock")  # how names begin that are no run's


class Ledger:
    """One output and its `_run/` folder. What changes it needs the table's lock: `with ledger.locked()`."""

    def __init__(self, output: str, storage: Storage) -> None:
        self.output, self.storage = output, storage
        self.home = join(output, RUN_FOLDER)
        self.records, self.plans = Records(output, storage), Plans(self.home, storage)
        self._lock: Lock | None = None

    # One job at a time

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the table's lock.

        Raises:
            JobError: another job holds it.
        """
        self._lock = Lock.take(self.output, self.storage)
        try:
            yield
        finally:
            lock, self._lock = self._lock, None
            try:
                lock.release()
            except (StorageError, JobError) as problem:  # what the job did is done
                _LOG.warning("the lock of %s could not be removed: %s", self.output, problem)

    def check_lock(self) -> None:
        """Raises JobError where the lock was lost."""
        if self._lock is None:
            raise RuntimeError(f"{self.output} is changed without its lock")
        self._lock.check()

    def open(self, *, adopt: bool = True) -> None:
        """Ends what a killed job left half-done.

        Args:
            adopt: give a table of an earlier version its records, for which all its files are read.
        """
        self.check_lock()
        self._complete_clear()
        if adopt and self._is_of_earlier_version():
            self.records.adopt(self._files_of_earlier_version())
            self.declare(self.identity() or {})
            for folder in ("commit", "census"):
                self.storage.remove(join(self.home, folder), recursive=True)
        self.records.sweep()

    # What every run of this output shares

    def identity(self) -> dict[str, Any] | None:
        """Models and settings; None where nothing was ever written."""
        return read_identity(self.output, self.storage)

    def tasks(self) -> list[str]:
        """The annotations that the table has; none where nothing was ever written."""
        return list((self.identity() or {}).get("models", {}))

    def declare(self, identity: Mapping[str, Any]) -> None:
        self.check_lock()
        self._write_json(_TABLE, {**identity, "format": FORMAT})

    def require(self, identity: Mapping[str, Any], tasks: Iterable[str]) -> None:
        """Refuses to mix results of other annotations, another model or other settings into this output.

        Args:
            identity: digests of the models, if known, and settings, by name.
            tasks: the annotations to write.
        """
        held = self.identity()
        if held is None:
            if strangers := data_files(self.output, self.storage):
                raise JobError(
                    f"--output {self.output} holds Parquet files of another origin ({strangers[0]}); "
                    "choose another output, or --overwrite to delete it."
                )
            return
        remedy = "Write to another output, or --overwrite to delete this one and start again."
        asked, there = sorted(tasks), sorted(held["models"])
        if asked != there:
            raise JobError(
                f"--output {self.output} holds {', '.join(there)}; this job would write {', '.join(asked)}, "
                f"and all files of a table have the same columns.\n{remedy}"
            )
        before, now = _by_setting(held), _by_setting(identity)
        differences = [
            f"{name}: it was {before.get(name)!r}, now {value!r}"
            for name, value in now.items()
            if before.get(name) != value
        ]
        if differences:
            raise JobError(
                f"--output {self.output} was made with another model or other settings:\n"
                + "\n".join(differences)
                + f"\n{remedy}"
            )

    def clear(self) -> None:
        """Deletes the output, if it is one of ours or a table at all; killed in between, `open` goes on."""
        self.check_lock()
        files = self.storage.list_files(self.output, recursive=True)
        strange = [
            uri for uri in files if not uri.endswith(".parquet") and not is_in_run_folder(uri, self.output)
        ]
        if strange and self.identity() is None:
            raise JobError(
                f"--overwrite would delete {self.output}, which holds files that no run of this wrote "
                f"({strange[0]}); delete it by hand or choose another output."
            )
        # Only what runs wrote; Parquet files in folders below are somebody else's.
        self.records.sweep()
        self._write_json(_OVERWRITE, {"files": data_files(self.output, self.storage)})
        self._complete_clear()

    def _complete_clear(self) -> None:
        intended = self.storage.read_bytes_or_none(join(self.home, _OVERWRITE))
        if intended is None:
            return
        for uri in json.loads(intended)["files"]:
            self.storage.remove(uri)
        kept = {lock_uri(self.output), join(self.home, _OVERWRITE)}
        for uri in self.storage.list_files(self.home, recursive=True):
            if uri not in kept:
                self.storage.remove(uri)
        self.storage.remove(join(self.home, _OVERWRITE))

    # What is done

    def files(self) -> list[FileRecord]:
        """The table's files; those of a table of an earlier version are looked into."""
        if self._is_of_earlier_version():
            return [record for record in self._files_of_earlier_version() if record.committed]
        return self.records.committed()

    def data_files_of(self, run_id: str) -> list[str]:
        return [self.uri_of(record) for record in self.files() if record.run_id == run_id]

    def uri_of(self, record: FileRecord) -> str:
        return join(self.output, record.file)

    def known_names(self) -> dict[str, str]:
        """uri -> name of every shard that any run set out to read."""
        return {line.shard.uri: line.shard.name for _, planned in self.plans.all() for line in planned}

    def plan(
        self,
        shards: list[Shard],
        new_run_id: str,
        *,
        where: str | None = None,
        failed: Mapping[str, pa.Array] | None = None,
    ) -> Work:
        """Compares the input with what the output holds, and says what is left to do; changes nothing.

        Args:
            where: the condition that clips must meet.
            failed: by shard, ids of the clips to annotate again.
        """
        failed = failed or {}
        plans, files = self.plans.all(), self.files()
        finished, unfinished = self._progress(plans, files)
        complete = complete_shards(plans, finished)

        def is_complete(uri: str, version: str, where: str | None) -> bool:
            return uri in complete and complete[uri].holds(version, where)

        todo = [
            shard
            for shard in shards
            if shard.uri in failed or not is_complete(shard.uri, shard.version, where)
        ]
        versions = {line.shard.uri: line.shard.version for lines in unfinished.values() for line in lines}
        versions |= {shard.uri: shard.version for shard in shards}
        missing = {
            run_id: [
                line
                for line in lines
                if not is_complete(line.shard.uri, versions[line.shard.uri], line.where)
            ]
            for run_id, lines in unfinished.items()
        }
        wanted = {shard.uri for shard in todo}
        continued = None if failed else continued_run(plans, missing, wanted, where)
        touched = {line.shard.uri for _, planned in plans for line in planned}
        return Work(
            run_id=continued or new_run_id,
            continued=continued is not None,
            shards=todo,
            done=_without(read_ids(self.output, self.storage, files, wanted & touched), failed),
            skipped=len(shards) - len(todo),
            interrupted=[run_id for run_id, lines in missing.items() if not lines],
            rows_before_kill=_rows_by_shard(files, continued) if continued else {},
            failed=failed,
            where=where,
        )

    def _progress(
        self, plans: list[Plan], files: list[FileRecord]
    ) -> tuple[dict[str, set[str]], dict[str, list[PlannedShard]]]:
        """By run the shards it read to their end, and by run without a summary those that it did not."""
        closed = self.closed_runs()
        everywhere = _rows_by_shard(files)
        finished: dict[str, set[str]] = {}
        unfinished: dict[str, list[PlannedShard]] = {}
        for run_id, planned in plans:
            if run_id in closed:
                finished[run_id] = {line.shard.uri for line in planned if line.finished}
                continue
            rows = _rows_by_shard(files, run_id)
            finished[run_id] = self.plans.read_to_their_end(run_id, planned, rows, everywhere)
            unfinished[run_id] = [line for line in planned if line.shard.uri not in finished[run_id]]
        return finished, unfinished

    # How a run goes on

    def begin(self, work: Work) -> None:
        """Writes down what the run sets out to read; a continued run adds to what it wrote before."""
        self.check_lock()
        earlier = self.plans.of(work.run_id)
        now = [
            PlannedShard(
                shard,
                work.where,
                retry=shard.uri in work.failed,
                rows_before_kill=work.rows_before_kill.get(shard.uri, 0),
            )
            for shard in work.shards
        ]
        self.plans.write(work.run_id, {line.shard.uri: line for line in [*earlier, *now]}.values())

    def writer(self, run_id: str, schema: pa.Schema) -> TableWriter:
        """What writes the files of this start of the run, for as long as it holds the lock."""
        assert self._lock is not None
        check = partial(check_lock, self._lock.uri, self._lock.token, self.storage)
        return TableWriter(self.output, self.storage, schema, run_id, uuid.uuid4().hex[:6], check)

    def shard_counter(self, run_id: str) -> Callable[[PartOfShard, int, int], None]:
        """What read tasks call with a part that they read to its end, its clips, and those that had rows."""
        return partial(write_shard_counts, self.storage, self.plans.shard_counts_uri(run_id))

    def finish(
        self,
        run_id: str,
        summary: Mapping[str, Any],
        *,
        to_the_end: bool = True,
        written: Iterable[FileRecord] = (),
    ) -> None:
        """The run is over: its summary says so, and what only a restart needs may go.

        Args:
            to_the_end: every shard was read to its end; else (`--limit`, a kill) counts and rows tell which.
            written: what the write tasks say they committed.
        """
        self.check_lock()
        files = self.records.committed()
        if lost := {record.file for record in written} - {record.file for record in files}:
            raise JobError(f"{self.output}: the records of {', '.join(sorted(lost))} are gone; run it again.")
        self.records.sweep(run_id)
        if not to_the_end:
            planned, rows = self.plans.of(run_id), _rows_by_shard(files, run_id)
            finished = self.plans.read_to_their_end(run_id, planned, rows, _rows_by_shard(files))
            self.plans.write(run_id, (replace(line, finished=line.shard.uri in finished) for line in planned))
        self.records.merge(run_id)
        self._write_json(f"{run_id}.json", summary)
        self.plans.remove_shard_counts(run_id)

    def closed_runs(self) -> set[str]:
        """Runs that have their summary."""
        return set(self._summary_uris())

    def summaries(self) -> Iterator[dict[str, Any]]:
        """Of the runs that are over; what is no run's summary, or is gone meanwhile, is left out."""
        for text in read_texts(list(self._summary_uris().values()), self.storage).values():
            with suppress(ValueError):
                summary = json.loads(text)
                if isinstance(summary, dict):
                    yield summary

    def _summary_uris(self) -> dict[str, str]:
        """By run."""
        named = {uri.rsplit("/", 1)[-1]: uri for uri in self.storage.list_files(self.home)}
        return {
            name.removesuffix(".json"): uri
            for name, uri in named.items()
            if name.endswith(".json") and not name.startswith(_NO_SUMMARY)
        }

    def _is_of_earlier_version(self) -> bool:
        return table_format(self.output, self.storage) == 0

    def _files_of_earlier_version(self) -> list[FileRecord]:
        runs = [run_id for run_id, _ in self.plans.all()]
        return files_of_earlier_version(self.output, self.storage, runs, self.closed_runs())

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        data = strict_json.dumps(value, indent=2) + "\n"
        self.storage.write_bytes(join(self.home, name), data.encode())


def _by_setting(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity, each model with an entry of its own."""
    models = {f"model of {task}": digest for task, digest in identity.get("models", {}).items()}
    return {**{name: value for name, value in identity.items() if name != "models"}, **models}


def _rows_by_shard(files: Iterable[FileRecord], run_id: str | None = None) -> Counter[str]:
    """Of the whole table, or of one run."""
    counts: Counter[str] = Counter()
    for record in files:
        if run_id in (None, record.run_id):
            counts.update(record.shards)
    return counts


def _without(ids: dict[str, pa.Array], others: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    return {
        shard: array.filter(pc.invert(pc.is_in(array, value_set=others[shard]))) if shard in others else array
        for shard, array in ids.items()
    }
