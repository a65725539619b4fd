"""Our own Parquet, opened: which files a table has, and what is in them. Nothing else opens them.

A table with a log has the files that are recorded there (see `pipeline.table.log`). Any other place has the
`*.parquet` directly inside a directory, those of a glob, or is one file; hidden names and logs do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import strict_json
from pipeline.corpus.aside import is_of_log
from pipeline.errors import JobError
from pipeline.storage import Storage, StorageError, glob_root, join, name_of
from pipeline.table.log.place import log_home
from pipeline.table.log.records import FORMAT, FileRecord, Records

BATCH_ROWS = 4096
# Fetched at once from storage far away: of whole rows, and of ids, which are a small part of a file.
_BLOCK_BYTES, _IDS_BYTES = 4 << 20, 64 << 10


@dataclass(frozen=True)
class _Identity:
    """What must be of a type in `table.json`, which holds settings besides."""

    format: int = 0
    models: dict[str, Any] = field(default_factory=dict)
    passthrough: str | None = None
    carried: str | None = None


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
        return [file.uri for file in storage.glob(uri) if _is_data(file.uri, glob_root(uri))]
    if not storage.is_dir(uri):
        if not storage.exists(uri):
            raise StorageError(storage.explain(uri, FileNotFoundError(uri)), missing=True)
        return [uri]
    return data_files(uri, storage)


def data_files(output: str, storage: Storage) -> list[str]:
    """The Parquet files of a table that is a directory; none where there is none."""
    home = log_home(output, storage)
    if (read_identity(home, storage) or {}).get("format") != FORMAT:
        return visible_files(output, storage)
    return [join(output, record.file) for record in Records(output, home, storage).committed()]


def visible_files(output: str, storage: Storage) -> list[str]:
    """The Parquet files that readers of the directory see."""
    return [file for file in storage.list_files(output) if _is_data(file, output)]


def visible_names(output: str, storage: Storage) -> list[str]:
    """The names of these files."""
    return [name_of(file) for file in visible_files(output, storage)]


def visible_sizes(output: str, storage: Storage) -> dict[str, int]:
    """The bytes of these files by their names."""
    sizes = storage.sizes(output).items()
    return {name_of(file): size for file, size in sizes if _is_data(file, output)}


def read_identity(home: str, storage: Storage) -> dict[str, Any] | None:
    """What all runs of a table share, by its log; None where nothing was ever written.

    Raises:
        JobError: it is damaged.
    """
    uri = join(home, "table.json")
    data = storage.read_bytes_or_none(uri)
    if data is None:
        return None
    try:
        found = strict_json.loads(data, dict[str, Any])
        strict_json.as_kind(found, _Identity)
    except ValueError as problem:
        raise JobError(
            f"{uri}, which says how the table was made, is damaged; restore it from a backup, or start again "
            "with another output."
        ) from problem
    if "carried" in found:  # its name in earlier versions
        found["passthrough"] = found.pop("carried")
    return found


def read_footer(uri: str, storage: Storage) -> Footer:
    with open_parquet(uri, storage) as file:
        return Footer(uri, file.schema_arrow, file.metadata.num_rows)


def read_batches(
    uri: str, storage: Storage, columns: Sequence[str], *, rows: int = BATCH_ROWS, block: int = _BLOCK_BYTES
) -> Iterator[pa.RecordBatch]:
    """The file's rows in its order, with those of `columns` that it has.

    Args:
        rows: of a batch, at most.
        block: bytes fetched at once.
    """
    with open_parquet(uri, storage, block=block) as file:
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


def read_names(
    output: str, storage: Storage, files: Iterable[FileRecord], shards: set[str]
) -> dict[str, str]:
    """By shard, the name that the ids of its clips begin with: the end of its path that stands before a `#`.

    Raises:
        JobError: the ids of a shard do not tell.
    """
    names: dict[str, str] = {}
    for shard, ids in read_ids(output, storage, files, shards).items():
        name = name_in_id(ids[0].as_py(), shard)
        if name is None:
            raise JobError(
                f"{output}: the log does not say any more which name the clips of {shard} have, and it is "
                f"not in their ids ({ids[0]}). Restore the log from a backup, or give --overwrite."
            )
        names[shard] = name
    return names


def name_in_id(clip_id: str, shard: str) -> str | None:
    """The name of a shard that the id of one of its clips begins with; None where the id does not tell."""
    parts = clip_id.split("#")
    before = ("#".join(parts[:count]) for count in range(1, len(parts)))
    return next((name for name in before if f"/{shard}".endswith(f"/{name}")), None)


def _batches_of(uri: str, storage: Storage, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Like `read_batches`, but a file that is gone is not told as a table that is missing."""
    try:
        yield from read_batches(uri, storage, columns, block=_IDS_BYTES)
    except StorageError as problem:
        if problem.missing:
            raise StorageError(f"{uri} has a record in the table, but is gone") from problem
        raise


@contextmanager
def open_parquet(uri: str, storage: Storage, *, block: int = _BLOCK_BYTES) -> Iterator[pq.ParquetFile]:
    """One file; all that goes wrong with it, now or while it is read, is a StorageError."""
    try:
        with storage.open(uri, block_size=block) as handle, pq.ParquetFile(handle) as file:
            yield file
    except StorageError:
        raise
    except (OSError, pa.ArrowException) as problem:
        missing = isinstance(problem, FileNotFoundError)
        raise StorageError(storage.explain(uri, problem), missing=missing) from problem


def without(ids: dict[str, pa.Array], others: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    """The ids of each shard but for these others."""
    return {
        shard: array.filter(pc.invert(pc.is_in(array, value_set=others[shard]))) if shard in others else array
        for shard, array in ids.items()
    }


def _is_data(uri: str, output: str) -> bool:
    name = name_of(uri)
    visible = name.endswith(".parquet") and not name.startswith((".", "_"))
    return visible and not is_of_log(uri[len(output.rstrip("/")) :])
