"""Parquet shards: one clip a row, the audio inside the row or beside the file."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Collection, Iterator
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.corpus.aside import is_of_table, may_be_of_table
from pipeline.corpus.clips import Clip, Shard
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.readers.base import (
    TABLE_BYTES,
    TABLE_ROWS,
    DamagedShardError,
    Extent,
    Reader,
    broken,
    shard_error,
    shard_row,
    tables,
)
from pipeline.corpus.readers.parquet.columns import (
    AUDIO_NAMES,
    columns_of,
    first_rows,
    has_path,
    is_text,
)
from pipeline.corpus.readers.parquet.rows import Rows, passing, sources
from pipeline.errors import ClipError, JobError
from pipeline.storage import Storage, StorageError, StorageFile

_LOG = logging.getLogger(__name__)
_SLICE_BYTES = 512 << 20
_SPLIT = re.compile(r"(\w+(?:\.\w+)*)-\d{5}-of-\d{5}\b")
_LOST_ROWS = 1 << 24  # of a row group that cannot be read; larger ones nobody writes
_OPTIONS: dict[str, Any] = {"buffer_size": 8 << 20, "pre_buffer": False, "page_checksum_verification": True}


class ParquetReader(Reader):
    """Parquet files. The number of a row in the file is its clip's key.

    What cannot be read becomes error rows: of a damaged row group the rows not read before the damage, and
    one row for the shard. After a storage failure nothing more is asked of storage. A footer that contradicts
    itself about the number of rows would give clips the wrong ids: such a shard is an error row alone.

    Of several audio columns one is taken (`columns_of`), and the others are left out of the table.
    """

    name = "parquet"
    endings = (".parquet",)
    lists_files = True

    def is_doubtful(self, name: str) -> bool:
        """It may be a file of a table, wherever that lies: its log may be out of sight, or left behind."""
        return may_be_of_table(name)

    def is_one(self, shard: Shard, storage: Storage) -> bool:
        try:
            with storage.open(shard.uri) as file:
                return not is_of_table(_open(file).metadata.metadata)
        except StorageError:
            raise
        except Exception:  # whatever Arrow makes of a damaged footer: reading the shard says it
            return True

    def columns(self, shard: Shard, storage: Storage) -> pa.Schema:
        """In plain types."""
        try:
            with storage.open(shard.uri) as file:
                opened = _open(file)
                schema = opened.schema_arrow
                columns = columns_of(schema, first_rows(opened))
        except StorageError as problem:
            if problem.not_delivered:
                raise
            return pa.schema([])
        except Exception:  # whatever Arrow makes of a damaged footer: reading the shard says it
            return pa.schema([])
        if columns.audio is None:
            raise JobError(_without_audio(shard, schema))
        if columns.left_out:
            left_out = ", ".join(schema.names[index] for index in columns.left_out)
            _say_once(schema.names[columns.audio], left_out)
        return passing(schema, columns, _split(shard))

    def sources(self, shard: Shard, storage: Storage, wanted: Callable[[str], bool]) -> Iterator[str]:
        """Paths are read, and audio only where one is wanted: beside bytes a path is but a name."""
        try:
            with storage.open(shard.uri) as file:
                yield from _paths_without_bytes(_open(file), shard, wanted)
        except StorageError:
            raise
        except Exception:  # whatever Arrow makes of damage: reading the shard says it
            return

    def slices(self, shard: Shard, storage: Storage) -> list[range]:
        """Runs of row groups of about `_SLICE_BYTES`."""
        if shard.size <= _SLICE_BYTES:
            return []
        try:
            with storage.open(shard.uri) as file:
                footer = _open(file).metadata
        except Exception:  # whatever Arrow makes of a damaged footer: reading the shard says it
            return []
        slices: list[range] = []
        first = size = 0
        for group in range(footer.num_row_groups):
            size += footer.row_group(group).total_byte_size
            if size >= _SLICE_BYTES or group + 1 == footer.num_row_groups:
                slices.append(range(first, group + 1))
                first, size = group + 1, 0
        return slices

    def slices_with(self, shard: Shard, storage: Storage, clip_ids: Collection[str]) -> list[range]:
        """The row groups that hold their rows."""
        keys = (clip_id.removeprefix(shard.clip_id("")) for clip_id in clip_ids)
        rows = [int(key) for key in keys if key.isdecimal()]
        with storage.open(shard.uri) as file:
            footer = _open(file).metadata
        ends = np.cumsum([footer.row_group(group).num_rows for group in range(footer.num_row_groups)])
        held = np.unique(np.searchsorted(ends, rows, side="right")).tolist()
        return [range(group, group + 1) for group in held if group < len(ends)]

    def extent(self, shard: Shard, storage: Storage) -> Extent:
        try:
            with storage.open(shard.uri) as file:
                return Extent(clips=_open(file).metadata.num_rows)
        except Exception:  # whatever Arrow makes of a damaged footer: reading the shard says it
            return Extent()

    def tables(
        self, shard: Shard, storage: Storage, passthrough: Passthrough, slice: range | None = None
    ) -> Iterator[pa.Table]:
        """In tables of about `TABLE_BYTES`; `slice`: these row groups."""
        try:
            with storage.open(shard.uri) as file:
                yield from _RowGroups(file, shard, passthrough).tables(slice)
        except Exception as problem:  # what Arrow makes of damage, or a StorageError
            yield shard_row(shard, shard_error(shard, problem), passthrough)


class _RowGroups:
    """An open file as tables."""

    def __init__(self, file: StorageFile, shard: Shard, passthrough: Passthrough) -> None:
        self._file = _open(file)
        self._size = file.seek(0, io.SEEK_END)
        self._shard, self._passthrough = shard, passthrough
        self._columns = columns_of(self._file.schema_arrow, first_rows(self._file))
        self._rows = Rows(self._columns, shard, passthrough, _split(shard))
        metadata = self._file.metadata
        self._counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]

    def tables(self, groups: range | None) -> Iterator[pa.Table]:
        shard = self._shard
        if self._columns.audio is None:
            no_audio = broken(_without_audio(shard, self._file.schema_arrow))
            yield shard_row(shard, no_audio, self._passthrough)
            return
        groups = range(len(self._counts)) if groups is None else groups
        row = sum(self._counts[: groups.start])
        first: ClipError | None = None
        unreadable: ClipError | None = None
        for group in groups:
            error, end = unreadable, row + self._counts[group]
            if error is None:
                try:
                    for batch in _batches(self._file, group, self._counts[group]):
                        yield self._rows.table(batch, row)
                        row += batch.num_rows
                    if row < end:
                        error = broken(f"{shard.name}: row group {group} ends {end - row} rows early")
                except Exception as problem:
                    error = shard_error(shard, problem, f": row group {group}")
                    if isinstance(problem, StorageError):
                        unreadable = error
            if error is not None:
                first = first or error
                yield from self._lost(range(row, end), error)
            row = end
        if first is not None:
            yield shard_row(shard, first, self._passthrough)

    def _lost(self, rows: range, error: ClipError) -> Iterator[pa.Table]:
        """Error rows; fewer where the footer promises more than a file of this size can hold."""
        rows = rows[: min(self._size, _LOST_ROWS)]  # a clip takes more than a byte
        clips = (Clip(self._shard.clip_id(row), self._shard.uri, error=error) for row in rows)
        return tables(clips, self._passthrough)


def _open(file: StorageFile) -> pq.ParquetFile:
    """Raises DamagedShardError where the footer contradicts itself about the number of rows.

    Nothing is asked of what the footer says of a column: there Arrow answers damage by ending the process.
    """
    opened = pq.ParquetFile(file, **_OPTIONS)
    metadata = opened.metadata
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if sum(counts) != metadata.num_rows or min(counts, default=0) < 0:
        raise DamagedShardError("the footer contradicts itself about the number of rows")
    return opened


def _batches(
    file: pq.ParquetFile, group: int, rows: int, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The first `rows` rows of a row group, or as many as there are; of these columns, or of all."""
    per_row = max(1, file.metadata.row_group(group).total_byte_size // max(1, rows))
    size = min(TABLE_ROWS, max(1, TABLE_BYTES // per_row))
    for batch in file.iter_batches(size, [group], columns, use_threads=False) if rows else ():
        if batch.num_rows:
            yield batch.slice(0, rows)
        rows -= batch.num_rows
        if rows <= 0 or not batch.num_rows:  # a damaged footer may promise more, without end
            return


def _paths_without_bytes(file: pq.ParquetFile, shard: Shard, wanted: Callable[[str], bool]) -> Iterator[str]:
    schema = file.schema_arrow
    audio = columns_of(schema, first_rows(file)).audio
    if audio is None or schema.names.count(schema.names[audio]) > 1:
        return
    if is_text(schema.types[audio]):
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            for batch in _batches(file, group, rows, [schema.names[audio]]):
                yield from filter(wanted, filter(None, _places(batch.column(0), shard)))
        return
    if not has_path(schema.types[audio]):
        return
    path, data = (f"{schema.names[audio]}.{field}" for field in ("path", "bytes"))
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        named: dict[int, str] = {}
        row = 0
        for batch in _batches(file, group, rows, [path]):
            paths = pc.struct_field(batch.column(0), "path")
            places = _places(paths, shard)
            named |= {row + i: place for i, place in enumerate(places) if place and wanted(place)}
            row += len(paths)
        row = 0
        for batch in _batches(file, group, rows, [data]) if named else ():
            absent = pc.indices_nonzero(pc.struct_field(batch.column(0), "bytes").is_null()).to_pylist()
            yield from (named[row + i] for i in absent if row + i in named)
            row += batch.num_rows


def _places(paths: pa.Array, shard: Shard) -> list[str | None]:
    """Where the audio of rows would be that have no bytes."""
    found: list[str | None] = sources(paths, pa.nulls(len(paths)), shard, [None] * len(paths)).to_pylist()
    return found


def _split(shard: Shard) -> str | None:
    """That of a file as `push_to_hub` of `datasets` names it, train-00000-of-00005.parquet."""
    match = _SPLIT.match(shard.name.rpartition("/")[2])
    return match[1] if match else None


@cache
def _say_once(audio: str, left_out: str) -> None:
    _LOG.warning("Parquet: the audio is column %s; other audio is left out of the table: %s", audio, left_out)


def _without_audio(shard: Shard, schema: pa.Schema) -> str:
    columns = ", ".join(f"{column.name} ({column.type})" for column in schema) or "none"
    return (
        f"{shard.name} has no audio column: wanted is a struct with a binary field `bytes` (null where its "
        f"`path` names a file), a binary column named one of {', '.join(AUDIO_NAMES)}, a single binary "
        f"column, or one that holds sound files; its columns are: {columns}. Text that names files is for a "
        "JSONL manifest"
    )
