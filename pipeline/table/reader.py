"""Our own Parquet, opened: which files a table has, and what is in them. Nothing else opens them.

A table that keeps records of its files (`_run/table.json` with a format, see `pipeline.table.records`) has
those that are committed there. Any other place has the `*.parquet` directly inside a directory, those of a
glob, or is one file; hidden names and `_run/` are no part of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage import Storage, StorageError, join
from pipeline.table.records import FileRecord, Records, count_file

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
        return [file.uri for file in storage.glob(uri) if _is_data(file.uri)]
    if not storage.is_dir(uri):
        if not storage.exists(uri):
            raise StorageError(storage.explain(uri, FileNotFoundError(uri)), missing=True)
        return [uri]
    return data_files(uri, storage)


def data_files(output: str, storage: Storage) -> list[str]:
    """The Parquet files of a table that is a directory; none where there is none."""
    if table_format(output, storage) is None:
        return [file for file in storage.list_files(output) if _is_data(file)]
    return [join(output, record.file) for record in Records(output, storage).committed()]


def table_format(output: str, storage: Storage) -> int | None:
    """The version of the table's records; None where it keeps none."""
    try:
        held = json.loads(storage.read_bytes(join(output, "_run", "table.json")))
    except StorageError as problem:
        if problem.missing:
            return None
        raise
    found: int | None = held.get("format")
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
        for uri in storage.list_files(join(output, "_run", "commit"), recursive=True)
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


def _is_data(uri: str) -> bool:
    name = uri.rsplit("/", 1)[-1]
    return name.endswith(".parquet") and not name.startswith((".", "_")) and "/_run/" not in uri
