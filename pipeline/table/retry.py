"""`--retry-errors`: error rows leave the table, and their clips are missing ones like any other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.clips import Shard
from pipeline.corpus.condition import Where
from pipeline.table.ledger import Ledger
from pipeline.table.log.records import FileRecord, count_file, write_file
from pipeline.table.reader import open_parquet, read_batches, read_ids


def failed_clips(ledger: Ledger, shards: Iterable[Shard], where: Where | None) -> dict[str, pa.Array]:
    """By shard, the ids of the rows that are errors, of these shards and under this condition."""

    def failed(rows: pa.Table) -> pa.Table:
        rows = rows.filter(rows["error"].is_valid())
        return where.filter(rows) if where is not None and rows.num_rows else rows

    columns = {"error", *(where.columns if where else ())} - {"shard", "clip_id"}
    files = [record for record in ledger.files() if record.errors]
    uris = {shard.uri for shard in shards}
    return read_ids(ledger.output, ledger.storage, files, uris, sorted(columns), failed)


def drop_rows(ledger: Ledger, failed: Mapping[str, pa.Array]) -> None:
    """Rewrites the data files that hold these clips without their error rows, each file at once.

    The plan of the run must be written before: killed in between, the clips are missing and the run says so.
    """
    if not failed:
        return
    ledger.check_lock()
    ids = pa.concat_arrays(list(failed.values()))
    rewritten = {
        record.run_id
        for record in ledger.files()
        if record.errors and not failed.keys().isdisjoint(record.shards) and _rewrite(ledger, record, ids)
    }
    for run_id in rewritten & ledger.closed_runs():
        ledger.records.merge(run_id)


def _rewrite(ledger: Ledger, record: FileRecord, ids: pa.Array) -> bool:
    """Takes the error rows of these clips out of one file; False where it has none."""
    uri, storage = ledger.uri_of(record), ledger.storage
    looks = read_batches(uri, storage, ["shard", "clip_id", "error"])
    batches = [pa.Table.from_batches([batch]) for batch in looks]
    left = [rows.filter(pc.invert(_among(rows, ids))) for rows in batches]
    if sum(rows.num_rows for rows in left) == sum(rows.num_rows for rows in batches):
        return False
    after = count_file(record.run_id, record.file, 0, (rows for rows in left if rows.num_rows))
    if not after.rows:
        ledger.records.remove(record)
        return True
    # Until the file is rewritten its record may count too few rows and too many errors, never the contrary.
    ledger.records.put(replace(after, bytes=record.bytes, errors=record.errors))
    with open_parquet(uri, storage) as file:
        groups = (file.read_row_group(number) for number in range(file.num_row_groups))
        ledger.records.put(
            write_file(ledger.records, record.file, _without(groups, ids), file.schema_arrow, record.run_id)
        )
    return True


def _without(groups: Iterable[pa.Table], ids: pa.Array) -> Iterator[pa.Table]:
    for group in groups:
        left = group.filter(pc.invert(_among(group, ids)))
        if left.num_rows:
            yield left


def _among(rows: pa.Table, ids: pa.Array) -> pa.Array | pa.ChunkedArray:
    return pc.and_(pc.is_in(rows["clip_id"], value_set=ids), rows["error"].is_valid())
