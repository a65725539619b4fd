"""Our own Parquet, opened: which files a table has, and what is in them. Nothing else opens them.

A table that keeps records of its files (`_run/table.json` with a format, see `pipeline.table.log.records`) has
those that are committed there. Any other place has the `*.parquet` directly inside a directory, those of a
glob, or is one file; hidden names and `_run/` are no part of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.storage import Storage, StorageError, join
from pipeline.table.log.records import RUN_FOLDER, FileRecord, Records, count_file

BATCH_ROWS = 4096
_OTHERS = "others"  # the run of files that no run's id names
_BLOCK_BYTES = 4 << 20  # fetched at once from storage far away


@dataclass(frozen=True)
class Footer:
    """What a file says of itself at its end."""

    uri: str
    schema: pa.Schema
    rows: int


def table_files(uri: str, storage: Storage) -> list[str]:
    """The Parquet files of a table, in the order of their names; `uri` is normalised.

    Raises:
        StorageError: nothing is there (`missing`), or storage does not answer.
    """
    if storage.is_glob(uri):
        base = re.split(r"[*?[]", uri, maxsplit=1)[0].rsplit("/", 1)[0]
        return [file.uri for file in storage.glob(uri) if _is_data(file.uri, base)]
    if not storage.is_dir(uri):
        if not storage.exists(uri):
            raise StorageError(storage.explain(uri, FileNotFoundError(uri)), missing=True)
        return [uri]
    return data_files(uri, storage)


def data_files(output: str, storage: Storage) -> list[str]:
    """The Parquet files of a table that is a directory; none where there is none."""
    if not table_format(output, storage):
        return [file for file in storage.list_files(output) if _is_data(file, output)]
    return [join(output, record.file) for record in Records(output, storage).committed()]


def table_format(output: str, storage: Storage) -> int | None:
    """The version of the table's records, 0 where it keeps none; None where there is no table of ours."""
    identity = read_identity(output, storage)
    return None if identity is None else int(identity.get("format", 0))


def read_identity(output: str, storage: Storage) -> dict[str, Any] | None:
    """What all runs of a table share; None where nothing was ever written."""
    data = storage.read_bytes_or_none(join(output, RUN_FOLDER, "table.json"))
    found: dict[str, Any] | None = None if data is None else json.loads(data)
    return found


def files_of_earlier_version(
    output: str, storage: Storage, runs: Iterable[str], closed: Iterable[str]
) -> list[FileRecord]:
    """Records of the files of a table that kept none, by looking into them.

    Runs that are over have all files of their name. Of killed ones count those that Ray's commit files name,
    and its pending ones name those to remove; others are left alone.
    """
    marks = {
        uri.rsplit("/", 1)[-1].removesuffix(".parquet")
        for uri in storage.list_files(join(output, RUN_FOLDER, "commit"), recursive=True)
    }
    names, over = list(runs), {*closed, _OTHERS}
    found = []
    for uri in data_files(output, storage):
        file = uri.rsplit("/", 1)[-1]
        run_id = next((run_id for run_id in names if file.startswith(f"{run_id}_")), _OTHERS)
        task = file.rsplit("-", 1)[0]  # Ray: <task>-<part>.parquet, after the mark <task>.parquet
        if run_id in over or task in marks:
            rows = read_batches(uri, storage, ["shard", "error"])
            found.append(count_file(run_id, file, storage.info(uri).size, rows))
        elif f"{task}.pending" in marks:
            found.append(FileRecord(run_id, file))
    return found


def read_footer(uri: str, storage: Storage) -> Footer:
    with open_parquet(uri, storage) as file:
        return Footer(uri, file.schema_arrow, file.metadata.num_rows)


def read_batches(
    uri: str, storage: Storage, columns: Sequence[str], *, rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """The file's rows in its order, with those of `columns` that it has.

    Args:
        rows: of a batch, at most.
    """
    with open_parquet(uri, storage) as file:
        held = [name for name in columns if name in file.schema_arrow.names]
        yield from file.iter_batches(rows, columns=held, use_threads=False)


def read_ids(
    output: str,
    storage: Storage,
    files: Iterable[FileRecord],
    shards: set[str],
    columns: Sequence[str] = (),
    keep: Callable[[pa.Table], pa.Table] | None = None,
) -> dict[str, pa.Array]:
    """By shard, the ids of the rows that these files have of it.

    Args:
        columns: that `keep` needs, beside shard and id.
        keep: those of some rows that count; all, if None.
    """
    wanted = pa.array(sorted(shards), pa.string())
    ids: dict[str, list[pa.Array]] = {}
    for record in files:
        if shards.isdisjoint(record.shards):
            continue
        for batch in _batches_of(join(output, record.file), storage, ["shard", "clip_id", *columns]):
            rows = pa.Table.from_batches([batch])
            rows = rows.filter(pc.is_in(rows["shard"], value_set=wanted))
            if keep is not None and rows.num_rows:
                rows = keep(rows)
            for shard in rows["shard"].unique().to_pylist():
                mine = rows.filter(pc.equal(rows["shard"], shard))["clip_id"]
                ids.setdefault(shard, []).append(mine.combine_chunks())
    return {shard: pa.concat_arrays(parts) for shard, parts in ids.items()}


def _batches_of(uri: str, storage: Storage, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Where a file of a table is gone, it is that file which is missing, not the table."""
    try:
        yield from read_batches(uri, storage, columns)
    except StorageError as problem:
        if problem.missing:
            raise StorageError(f"{uri} has a record in the table, but is gone") from problem
        raise


@contextmanager
def open_parquet(uri: str, storage: Storage) -> Iterator[pq.ParquetFile]:
    """One file; all that goes wrong with it, now or while it is read, is a StorageError."""
    try:
        with storage.open(uri, block_size=_BLOCK_BYTES) as handle, pq.ParquetFile(handle) as file:
            yield file
    except StorageError:
        raise
    except (OSError, pa.ArrowException) as problem:
        missing = isinstance(problem, FileNotFoundError)
        raise StorageError(storage.explain(uri, problem), missing=missing) from problem


def is_in_run_folder(uri: str, output: str) -> bool:
    """Whatever the folders above the output are named."""
    return f"/{RUN_FOLDER}/" in uri[len(output.rstrip("/")) :]


def _is_data(uri: str, output: str) -> bool:
    name = uri.rsplit("/", 1)[-1]
    visible = name.endswith(".parquet") and not name.startswith((".", "_"))
    return visible and not is_in_run_folder(uri, output)
