"""What an output already holds: its log says which files, and so which clips, are done.

The Parquet files lie in the output, all else in its log (see `pipeline.table.log.place`):

    table.json             model digests, settings and passthrough columns that all runs of the output share
    lock*.json             who writes the table, or a lane of it, just now (see `pipeline.table.lock`)
    files/                 which files the table has (see `pipeline.table.log.records`)
    shards/, shard_counts/ what runs set out to read, and how far they came (see `pipeline.table.log.plans`)
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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline import strict_json
from pipeline.corpus.clips import Shard
from pipeline.corpus.lanes import Lane, lane_named, may_meet
from pipeline.corpus.parts import Finished
from pipeline.errors import JobError
from pipeline.storage import Storage, StorageError, join, name_of
from pipeline.table.identity import require_same
from pipeline.table.lock import Lock, check_lock
from pipeline.table.log.look import look_for_files
from pipeline.table.log.place import log_home
from pipeline.table.log.plans import (
    Plan,
    PlannedShard,
    Plans,
    Work,
    complete_shards,
    continued_run,
    write_shard_counts,
)
from pipeline.table.log.records import FORMAT, FileRecord, Records, read_texts
from pipeline.table.log.repair import adopt, earlier_files, mend, remove_unfinished
from pipeline.table.log.writer import NOTHING, USUAL, Layout, TableWriter, Written
from pipeline.table.overwrite import INTENDED, clear, intend_to_clear, is_cut_off
from pipeline.table.reader import data_files, read_identity, read_ids, read_names, visible_names, without

_LOG = logging.getLogger(__name__)
_TABLE = "table.json"
_NO_SUMMARY = (_TABLE, INTENDED, "lock")  # how names begin that are no run's


class Ledger:
    """One output and its log. What changes it needs the lock: `with ledger.locked()`.

    Attributes:
        lane: whose shards alone are read and written; None: all.
    """

    def __init__(self, output: str, storage: Storage, lane: Lane | None = None) -> None:
        self.output, self.storage, self.lane = output, storage, lane
        self.home = log_home(output, storage)
        self.records, self.plans = Records(output, self.home, storage), Plans(self.home, storage)
        self._lock: Lock | None = None

    # One job at a time

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock.

        Raises:
            TableInUseError: another job holds it.
        """
        self._lock = Lock.take(self.output, self.home, self.storage, self.lane)
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

    def open(self, *, fresh: bool = False) -> None:
        """Ends what killed jobs left half-done, and mends what is damaged.

        Args:
            fresh: the table will be cleared, so that what it holds need not be looked at.
        """
        self.check_lock()
        cut_off, earlier = is_cut_off(self.home, self.storage), self.format() < FORMAT
        if self.lane and (cut_off or earlier):
            why = "an --overwrite of it was cut off" if cut_off else "it was made by an earlier version"
            raise JobError(f"--output {self.output}: {why}; run one job without --lane first.")
        clear(self.home, self.storage, self.check_lock)
        if fresh:
            return
        if earlier:
            adopt(self.records, self.format(), self.plans.run_ids(), self.closed_runs())
            self.declare(self.identity() or {})
            for folder in ("commit", "census"):
                self.storage.remove(join(self.home, folder), recursive=True)
        mend(self.records)
        self.records.sweep(self.is_mine)
        remove_unfinished(self.home, self.storage, self.is_mine, shared=self.lane is not None)
        closed = {run_id for run_id in self.closed_runs() if self.is_mine(run_id)}
        for run_id in closed & self.records.unmerged_runs():
            self.records.remove(run_id, self.records.merge(run_id))
        for run_id in closed & self.plans.counted_runs():
            self.plans.remove_shard_counts(run_id)
        self._look_for_files()

    def is_mine(self, run_id: str) -> bool:
        """Whether nobody else may work on a run of this id while this ledger is locked."""
        return may_meet(self.lane, lane_named(run_id))

    def _look_for_files(self) -> None:
        def runs() -> Iterable[str]:
            return filter(self.is_mine, {*self.plans.run_ids(), *self.closed_runs()})

        look_for_files(self.records, runs)

    # What every run of this output shares

    def identity(self) -> dict[str, Any] | None:
        """Models and settings; None where nothing was ever written."""
        return read_identity(self.home, self.storage)

    def format(self) -> int:
        """The version of the log; that of this version where there is no table yet."""
        held = self.identity()
        return FORMAT if held is None else int(held.get("format", 0))

    def tasks(self) -> list[str]:
        """The annotations that the table has; none where nothing was ever written."""
        return list((self.identity() or {}).get("models", {}))

    def declare(self, identity: Mapping[str, Any]) -> None:
        """Raises JobError where the job of another lane just declared something else."""
        self.check_lock()
        declared = {**identity, "format": FORMAT}
        if self.lane and not self.storage.create(join(self.home, _TABLE), _json(declared)):
            held = self.identity() or {}
            if {**held, **json.loads(_json(declared))} != held:
                raise JobError(
                    f"--output {self.output} was just begun with other settings or input; try again."
                )
            return
        self._write_json(_TABLE, declared)

    def require(self, identity: Mapping[str, Any], tasks: Iterable[str]) -> None:
        """Refuses to mix results of other annotations, another model or other settings into this output.

        Args:
            identity: digests of the models, if known, and settings, by name.
            tasks: the annotations to write.
        """
        held = self.identity()
        if held is not None:
            require_same(self.output, held, identity, tasks)
        elif strangers := data_files(self.output, self.storage):
            raise JobError(
                f"--output {self.output} holds Parquet files of another origin ({strangers[0]}), or its log "
                f"{self.home} is missing. Choose another output, or delete this one with --overwrite."
            )

    def clear(self) -> None:
        """Deletes the table; killed in between, the next `open` goes on.

        Raises:
            JobError: the output is not a table of ours, and holds other files than Parquet.
        """
        self.check_lock()
        files = self.storage.list_files(self.output, recursive=True)
        strange = [
            uri for uri in files if not uri.endswith(".parquet") and not uri.startswith(f"{self.home}/")
        ]
        if strange and self.identity() is None:
            raise JobError(
                f"--overwrite would delete {self.output}, which holds files that no job wrote "
                f"({strange[0]}); delete it by hand or choose another output."
            )
        self.records.sweep()
        intend_to_clear(self.output, self.home, self.storage)
        clear(self.home, self.storage, self.check_lock)

    # What is done

    def files(self) -> list[FileRecord]:
        """The table's files; those of a table of an earlier version are looked into."""
        if (version := self.format()) < FORMAT:
            found = earlier_files(self.records, version, self.plans.run_ids(), self.closed_runs())
            return [record for record, committed in found if committed]
        return self.records.committed()

    def data_files_of(self, run_id: str) -> list[str]:
        return [self.uri_of(record) for record in self.files() if record.run_id == run_id]

    def uri_of(self, record: FileRecord) -> str:
        return join(self.output, record.file)

    def known_names(self) -> dict[str, str]:
        """uri -> name of every shard that any run set out to read, also where its plan is damaged."""
        names = {line.shard.uri: line.shard.name for _, planned in self.plans.all() for line in planned}
        if self.format() < FORMAT:
            return names
        files = self.records.committed()
        lost = {shard for record in files for shard in record.shards} - names.keys()
        return names | read_names(self.output, self.storage, files, lost)

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
        return Work(
            run_id=continued or new_run_id,
            continued=continued is not None,
            shards=todo,
            done=without(read_ids(self.output, self.storage, files, wanted), failed),
            skipped=len(shards) - len(todo),
            interrupted=[run_id for run_id, lines in missing.items() if not lines and self.is_mine(run_id)],
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

    def writer(self, run_id: str, schema: pa.Schema, layout: Layout = USUAL) -> TableWriter:
        """What writes the files of this start of the run, for as long as it holds the lock."""
        assert self._lock is not None
        check = partial(check_lock, self._lock.uri, self._lock.token, self.storage)
        return TableWriter(self.records, schema, run_id, uuid.uuid4().hex[:6], check, layout)

    def shard_counter(self, run_id: str) -> Finished:
        """What read tasks call with a part that they read to its end, its clips, and those that had rows."""
        return partial(write_shard_counts, self.storage, self.plans.shard_counts_uri(run_id))

    def finish(
        self,
        run_id: str,
        summary: Mapping[str, Any],
        *,
        to_the_end: bool = True,
        written: Written = NOTHING,
    ) -> None:
        """The run is over: its summary says so, and what only a restart needs may go.

        Args:
            to_the_end: every shard was read to its end; else (`--limit`, a kill) counts and rows tell which.
            written: what the write tasks say they committed, and what storage did not deliver to them.
        """
        self.check_lock()
        files = self.records.committed()
        counted = {record.file for record in files}
        seen = set(visible_names(self.output, self.storage))
        if lost := sorted({record.file for record in written.files} - (counted & seen)):
            raise JobError(
                f"{self.output}: {len(lost)} files that this run wrote are not there or have no record "
                f"({lost[0]}). Run the job again."
            )
        self.records.sweep(lambda noted: noted == run_id)
        if not to_the_end or written.undelivered:
            planned, rows = self.plans.of(run_id), _rows_by_shard(files, run_id)
            finished = {line.shard.uri for line in planned}
            if not to_the_end:
                finished = self.plans.read_to_their_end(run_id, planned, rows, _rows_by_shard(files))
            finished -= written.undelivered.keys()
            self.plans.write(run_id, (replace(line, finished=line.shard.uri in finished) for line in planned))
        self.check_lock()
        merged = self.records.merge(run_id)
        self._write_json(f"{run_id}.json", summary)
        self.records.remove(run_id, merged)
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
        named = {name_of(uri): uri for uri in self.storage.list_files(self.home)}
        return {
            name.removesuffix(".json"): uri
            for name, uri in named.items()
            if name.endswith(".json") and not name.startswith(_NO_SUMMARY)
        }

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        self.storage.write_bytes(join(self.home, name), _json(value))


def _json(value: Mapping[str, Any]) -> bytes:
    return (strict_json.dumps(value, indent=2) + "\n").encode()


def _rows_by_shard(files: Iterable[FileRecord], run_id: str | None = None) -> Counter[str]:
    """Of the whole table, or of one run."""
    counts: Counter[str] = Counter()
    for record in files:
        if run_id in (None, record.run_id):
            counts.update(record.shards)
    return counts
