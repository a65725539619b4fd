"""Clips to annotate again: their error rows are removed from the table, so that they count as not done.

With `--retry-errors` these are all clips that failed, without it those whose audio storage did not deliver,
and those of shards that changed since: half copied then, a shard may be whole now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.clips import Shard
from pipeline.corpus.condition import Where
from pipeline.corpus.lanes import lane_named
from pipeline.errors import Code
from pipeline.table.ledger import Ledger
from pipeline.table.log.records import FileRecord
from pipeline.table.log.writer import write_file
from pipeline.table.reader import open_parquet, read_batches, read_ids


def failed_clips(
    ledger: Ledger, shards: Iterable[Shard], where: Where | None, *, undelivered: bool = False
) -> dict[str, pa.Array]:
    """By shard, the ids of the rows that are errors, of these shards and under this condition.

    Args:
        undelivered: only those whose audio storage did not deliver, and those of shards that have another
            version than the run that wrote them set out to read.

    Files that other lanes may change at the same time are left to a job without a lane.
    """
    now = {shard.uri: shard.version for shard in shards}
    by_run: dict[str, list[FileRecord]] = defaultdict(list)
    for record in ledger.files():
        if record.errors and (ledger.lane is None or lane_named(record.run_id) == ledger.lane):
            by_run[record.run_id].append(record)
    plans = dict(ledger.plans.all()) if undelivered and by_run else {}
    columns = sorted({"error", *(where.columns if where else ())} - {"shard", "clip_id"})
    ids: dict[str, list[pa.Array]] = defaultdict(list)
    for run_id, files in by_run.items():
        keep = partial(_failed, where=where)
        if undelivered:
            then = {line.shard.uri: line.shard.version for line in plans.get(run_id, ())}
            changed = {uri for uri, version in then.items() if now.get(uri, version) != version}
            files = [each for each in files if each.undelivered or not changed.isdisjoint(each.shards)]
            keep = partial(_failed, where=where, changed=pa.array(changed, pa.string()))
        for uri, some in read_ids(ledger.output, ledger.storage, files, set(now), columns, keep).items():
            ids[uri].append(some)
    return {uri: pa.concat_arrays(parts) for uri, parts in ids.items()}


def _failed(rows: pa.Table, *, where: Where | None, changed: pa.Array | None = None) -> pa.Table:
    """The rows to try again; `changed`: only of these shards, and what storage did not deliver."""
    rows = rows.filter(rows["error"].is_valid())
    if changed is not None:
        late = pc.equal(pc.struct_field(rows["error"], "code"), Code.UNREADABLE.value)
        rows = rows.filter(pc.or_(late, pc.is_in(rows["shard"], value_set=changed)))
    return where.filter(rows) if where is not None and rows.num_rows else rows


def drop_rows(ledger: Ledger, failed: Mapping[str, pa.Array]) -> None:
    """Rewrites the data files that hold error rows of these clips, without those rows.

    The plan of the run must be written before: killed in between, the clips are missing and the run says so.
    """
    if not failed:
        return
    ids = pa.concat_arrays(list(failed.values()))
    for record in ledger.files():
        if record.errors and not failed.keys().isdisjoint(record.shards):
            ledger.check_lock()
            _rewrite(ledger, record, ids)


def _rewrite(ledger: Ledger, record: FileRecord, ids: pa.Array) -> None:
    """Takes the error rows of these clips out of one file, if it has any."""
    uri, storage = ledger.uri_of(record), ledger.storage
    looks = read_batches(uri, storage, ["clip_id", "error"])
    if not any(pc.any(_among(batch, ids)).as_py() for batch in looks):
        return
    with open_parquet(uri, storage) as file:
        groups = (file.read_row_group(number) for number in range(file.num_row_groups))
        left = _without(groups, ids)
        ledger.records.replace(
            record, lambda name: write_file(ledger.records, name, left, file.schema_arrow, record.run_id)
        )


def _without(groups: Iterable[pa.Table], ids: pa.Array) -> Iterator[pa.Table]:
    for group in groups:
        yield group.filter(pc.invert(_among(group, ids)))


def _among(rows: pa.Table | pa.RecordBatch, ids: pa.Array) -> pa.Array | pa.ChunkedArray:
    return pc.and_(pc.is_in(rows["clip_id"], value_set=ids), rows["error"].is_valid())
