"""What the input holds, and what of it is left to do: all that a job looks at before it starts."""

from __future__ import annotations

import base64
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from pipeline.corpus.aside import left_aside
from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough, merge, reserved_names
from pipeline.corpus.condition import Where
from pipeline.corpus.lanes import lane_suffix
from pipeline.corpus.listing import changed_since, discover, drop_listed_files, filter_files
from pipeline.corpus.readers import READERS
from pipeline.errors import JobError
from pipeline.spec.run import RunSpec
from pipeline.storage import Storage, StorageError, place_errors
from pipeline.table.ledger import Ledger
from pipeline.table.log.place import require_outside_tables
from pipeline.table.log.plans import Work
from pipeline.table.retry import failed_clips

_RUN_TIME = "%Y%m%dT%H%M%SZ"
_SAMPLED_SHARDS = 32  # of each layout, to learn the columns that the input brings along


@dataclass(frozen=True)
class Changes:
    """The shards in question, what is left to do of them, and the input's own columns.

    `older` shards are skipped for `--since`, `filtered` loose files for `--where`; `left_aside` counts
    what is not input.
    """

    shards: list[Shard]
    work: Work
    passthrough: Passthrough
    since: datetime | None = None
    older: int = 0
    filtered: int = 0
    left_aside: str = ""

    def log_lines(self) -> Iterator[str]:
        work = self.work
        again = f" ({work.clips_done} of their clips are done already)" if work.clips_done else ""
        yield (
            f"{len(self.shards)} shards: {work.skipped} finished before and skipped, "
            f"{len(work.shards)} to read{again}"
        )
        if self.left_aside:
            yield self.left_aside
        if self.older and self.since is not None:
            yield f"{self.older} shards skipped: older than {self.since:%Y-%m-%d %H:%M:%S %Z}"
        if self.filtered:
            yield f"{self.filtered} audio files skipped by --where"
        if work.clips_failed:
            yield f"{work.clips_failed} clips that failed before to be annotated again"


def choose_table(spec: RunSpec, storage: Storage) -> tuple[Ledger, Ledger | None]:
    """The table to write, and the one it stands beside.

    Where the output already is a table of other annotations, what is added later goes to a sibling of it with
    the same ids: all files of a table have the same columns, and to rewrite a finished table for one more
    column would cost as much as the table and could be killed half-way.

    Raises:
        JobError: it is a file, or would begin inside another table, whose readers would take its files too.
    """
    output = storage.normalise(spec.table.output).rstrip("/")
    lane = spec.table.shards_of_lane
    with output_errors(spec):
        if storage.is_file(output):
            raise JobError(f"--output {spec.table.output} is a file; name a directory.")
        ledger = Ledger(output, storage, lane)
        held = ledger.tasks()
        if not held:  # a table that is there already may stay where it is
            above = storage.real(output).rpartition("/")[0]
            require_outside_tables(f"--output {spec.table.output}", above, storage)
        if not held or not set(spec.makes).isdisjoint(held):
            return ledger, None
        return Ledger(f"{output}-{'-'.join(spec.makes)}", storage, lane), ledger


@contextmanager
def opened(spec: RunSpec, ledger: Ledger) -> Iterator[None]:
    """Holds the lock of the table, and ends what a killed job left half-done in it.

    Raises:
        JobError: another job holds it, or storage lets nobody write there.
    """
    with ExitStack() as stack:
        with output_errors(spec):
            stack.enter_context(ledger.locked())
            ledger.open(fresh=spec.table.overwrite)
        yield


def scan(
    spec: RunSpec,
    ledger: Ledger,
    identity: Mapping[str, Any],
    base_table: Ledger | None = None,
) -> Changes:
    """Compares the input with the output; with `--overwrite`, as if that held nothing. Changes nothing.

    Before a job works, the table must be opened (see `opened`).

    Args:
        identity: the settings and models that all runs of the output share.
        base_table: the one that this one stands beside.

    Raises:
        JobError: no input, an output of other settings or models, an invalid --where expression, an
            --overwrite without anything to write.
    """
    if spec.table.retry_errors and spec.corpus.limit is not None:
        raise JobError(
            "--retry-errors and --limit do not go together: error rows that are taken out would wait for a "
            "later run. Narrow --retry-errors with --where or --since."
        )
    corpus, storage, fresh = spec.corpus, ledger.storage, spec.table.overwrite
    with output_errors(spec):
        known = {} if fresh else ledger.known_names()
        held = None if fresh else ledger.identity()
        if base_table is not None:
            known = {**base_table.known_names(), **known}  # the same clips have the same ids
    tables = [ledger, *([base_table] if base_table else [])]
    outputs = [place for table in tables for place in (table.output, table.home)]
    aside: Counter[str] = Counter()
    found = discover(corpus.input, storage, outputs=outputs, known_names=known, left_aside=aside)
    found = drop_listed_files(found, storage)
    # All lanes look at the whole input, so that they agree on names and columns.
    passthrough = _passthrough(held, found, storage, reserved_names(spec.column_names))
    where = Where(corpus.where, passthrough.schema) if corpus.where else None
    mine = [shard for shard in found if ledger.lane is None or ledger.lane.takes(shard.uri)]
    recent = changed_since(mine, corpus.since)
    shards = filter_files(recent, where, passthrough, storage) if where else recent
    if fresh and not shards:
        raise JobError("--overwrite: of the input nothing is left to read, so nothing is overwritten.")
    with output_errors(spec):
        run_id = _new_run_id([] if fresh else ledger.plans.run_ids()) + lane_suffix(ledger.lane)
        if fresh:
            work = Work(run_id, False, shards, {}, 0, where=corpus.where)
        else:
            ledger.require(identity, spec.makes)
            failed = (
                {}  # rows that are taken out would wait for a later run
                if corpus.limit is not None
                else failed_clips(ledger, shards, where, undelivered=not spec.table.retry_errors)
            )
            work = ledger.plan(shards, run_id, where=corpus.where, failed=failed)
    older, filtered = len(mine) - len(recent), len(recent) - len(shards)
    return Changes(shards, work, passthrough, corpus.since, older, filtered, left_aside(aside))


def _new_run_id(earlier: Sequence[str]) -> str:
    """The time, to the second; later than every earlier run's, whose machine's clock may have been ahead."""
    now = datetime.now(UTC).replace(microsecond=0, tzinfo=None)
    for run_id in earlier:
        with suppress(ValueError):
            now = max(now, datetime.strptime(run_id.split("-")[0], _RUN_TIME) + timedelta(seconds=1))
    return f"{now.strftime(_RUN_TIME)}-{uuid.uuid4().hex[:6]}"


def output_errors(spec: RunSpec) -> AbstractContextManager[None]:
    return place_errors("--output", spec.table.output)


def _passthrough(
    held: Mapping[str, Any] | None, shards: Sequence[Shard], storage: Storage, reserved: frozenset[str]
) -> Passthrough:
    """The input's own columns: fixed by the first run of an output, so that all its files agree.

    Raises:
        JobError: storage does not deliver a shard that was to be looked at: the table would lack its columns.
    """
    if (schema := held_schema(held or {})) is not None:
        return Passthrough(schema, reserved)
    schemas = []
    for reader in READERS.values():
        of_kind = [
            shard
            for shard in shards
            if shard.format == reader.name and (shard.beside is not None or not reader.one_clip)
        ]
        step = max(1, len(of_kind) // _SAMPLED_SHARDS)
        problems = []
        found = []
        for shard in of_kind[::step]:
            try:
                found.append(reader.columns(shard, storage))
            except StorageError as problem:
                raise JobError(f"--input: {problem}, so that its columns are not known.") from problem
            except Exception as problem:  # a broken shard is an error row later, not the end of the job
                problems.append(problem)
        if not found and len(of_kind) == len(shards) and problems and isinstance(problems[0], JobError):
            raise problems[0]
        schemas += found
    return Passthrough(merge(schemas, reserved), reserved)


def packed_schema(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def held_schema(identity: Mapping[str, Any]) -> pa.Schema | None:
    """The input's own columns as a table's identity has them; None where it has none."""
    packed = identity.get("passthrough")
    return None if packed is None else pa.ipc.read_schema(pa.py_buffer(base64.b64decode(packed)))
