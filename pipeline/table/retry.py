"""`--retry-errors`: error rows leave the table, and their clips are missing ones like any other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.corpus.condition import Where
from pipeline.corpus.listing import Shard
from pipeline.storage import Storage, path_of
from pipeline.table.ledger import Ledger


def failed_clips(ledger: Ledger, shards: Iterable[Shard], where: Where | None) -> dict[str, pa.Array]:
    """By shard, the ids of the rows that are errors, of these shards and under this condition."""
    wanted = pa.array(sorted(shard.uri for shard in shards), pa.string())
    columns = sorted({"clip_id", "shard", "error", *(where.columns if where else ())})
    ids: dict[str, list[pa.Array]] = {}
    for uri in ledger.data_files():
        with _open(uri, ledger.storage) as file:
            for batch in file.iter_batches(columns=columns):
                rows = pa.Table.from_batches([batch])
                rows = rows.filter(
                    pc.and_(rows["error"].is_valid(), pc.is_in(rows["shard"], value_set=wanted))
                )
                if where is not None and rows.num_rows:
                    rows = where.filter(rows)
                for shard in rows["shard"].unique().to_pylist():
                    mine = rows.filter(pc.equal(rows["shard"], shard))["clip_id"]
                    ids.setdefault(shard, []).append(mine.combine_chunks())
    return {shard: pa.concat_arrays(parts) for shard, parts in ids.items()}


def drop_rows(ledger: Ledger, failed: Mapping[str, pa.Array]) -> None:
    """Rewrites the data files that hold these clips without their error rows, each file at once.

    The plan of the run must be written before: killed in between, the clips are missing and the run says so.
    """
    if not failed:
        return
    ids = pa.concat_arrays(list(failed.values()))
    for uri in ledger.data_files():
        with _open(uri, ledger.storage) as file:
            looks = file.iter_batches(columns=["clip_id", "error"])
            if not any(pc.any(_among(rows, ids)).as_py() for rows in looks):
                continue
            left = _without(file, ids)
        if left is None:
            ledger.storage.remove(uri)
        else:
            ledger.storage.write_bytes(uri, left)


def _without(file: pq.ParquetFile, ids: pa.Array) -> bytes | None:
    """The file without the error rows of these clips; None where no row is left."""
    buffer = pa.BufferOutputStream()
    rows = 0
    with pq.ParquetWriter(buffer, file.schema_arrow, compression="zstd") as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            table = table.filter(pc.invert(_among(table, ids)))
            rows += table.num_rows
            if table.num_rows:
                writer.write_table(table)
    return buffer.getvalue().to_pybytes() if rows else None


def _among(rows: pa.Table | pa.RecordBatch, ids: pa.Array) -> pa.Array | pa.ChunkedArray:
    return pc.and_(pc.is_in(rows.column("clip_id"), value_set=ids), rows.column("error").is_valid())


def _open(uri: str, storage: Storage) -> pq.ParquetFile:
    return pq.ParquetFile(path_of(uri), filesystem=storage.arrow_filesystem(uri))
