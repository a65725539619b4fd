"""Clips to annotate again: their error rows are removed from the table, so that they count as not done.

With `--retry-errors` these are all clips that failed, without it those whose audio storage did not deliver.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

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
        undelivered: only those whose audio storage did not deliver. Files that other lanes may change at the
            same time are left to a job without a lane.
    """

    def failed(rows: pa.Table) -> pa.Table:
        rows = rows.filter(rows["error"].is_valid())
        if undelivered:
            rows = rows.filter(pc.equal(pc.struct_field(rows["error"], "code"), Code.UNREADABLE.value))
        return where.filter(rows) if where is not None and rows.num_rows else rows

    columns = {"error", *(where.columns if where else ())} - {"shard", "clip_id"}
    files = [
        record
        for record in ledger.files()
        if (record.undelivered if undelivered else record.errors)
        and (ledger.lane is None or lane_named(record.run_id) == ledger.lane)
    ]
    uris = {shard.uri for shard in shards}
    return read_ids(ledger.output, ledger.storage, files, uris, sorted(columns), failed)


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
