"""Parquet shards: one clip a row, the audio inside the row or beside the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.carried import conform_columns, plain
from pipeline.errors import ClipError, Code, JobError, Stage
from pipeline.readers.common import (
    TABLE_BYTES,
    TABLE_ROWS,
    broken,
    clip_id,
    failure,
    is_damage,
    resolve,
    shard_row,
    tables,
)
from pipeline.schema import ERROR, Clip, read_schema
from pipeline.shards import Shard
from pipeline.storage import Storage

_AUDIO_NAMES = ("audio", "bytes", "audio_bytes", "wav", "flac", "mp3")
_NO_AUDIO = ClipError(Stage.READ, Code.NO_AUDIO, "the row's audio is null").as_row()


def parquet_columns(shard: Shard, storage: Storage) -> pa.Schema:
    """The columns beside the audio, in plain types, under the input's names.

    A file that cannot be opened has none: reading it says why. Raises JobError when no column holds audio.
    """
    try:
        with storage.open(shard.uri) as handle:
            schema = pq.read_schema(handle)
    except Exception:
        return pa.schema([])
    audio = _audio_index(schema)
    if audio is None:
        raise JobError(_without_audio(shard, schema))
    return pa.schema(
        [(column.name, plain(column.type)) for index, column in enumerate(schema) if index != audio]
    )


def read_parquet(
    shard: Shard, storage: Storage, carried: pa.Schema, *, row_groups: range | None = None
) -> Iterator[pa.Table]:
    """The clips of the shard, or of its `row_groups`, in tables of about `TABLE_BYTES`.

    What cannot be read becomes error rows: of a damaged row group the rows not read before the damage, and
    one row for the shard. After a storage failure nothing more is asked of storage.
    """
    try:
        with storage.open(shard.uri) as handle:
            file = pq.ParquetFile(
                handle, buffer_size=8 << 20, pre_buffer=False, page_checksum_verification=True
            )
            yield from _read(file, shard, storage, carried, row_groups)
    except Exception as problem:
        yield shard_row(shard, failure(shard, storage, problem), carried)


def _read(
    file: pq.ParquetFile, shard: Shard, storage: Storage, carried: pa.Schema, row_groups: range | None
) -> Iterator[pa.Table]:
    audio = _audio_index(file.schema_arrow)
    if audio is None:
        yield shard_row(shard, broken(_without_audio(shard, file.schema_arrow)), carried)
        return
    groups = range(file.num_row_groups) if row_groups is None else row_groups
    row = sum(file.metadata.row_group(group).num_rows for group in range(groups.start))
    unreadable: ClipError | None = None
    first: ClipError | None = None
    for group in groups:
        metadata = file.metadata.row_group(group)
        end = row + metadata.num_rows
        error = unreadable
        if error is None:
            per_row = max(1, metadata.total_byte_size // max(1, metadata.num_rows))
            size = min(TABLE_ROWS, max(1, TABLE_BYTES // per_row))
            try:
                for batch in file.iter_batches(size, row_groups=[group], use_threads=False):
                    yield _table(batch, audio, row, shard, carried)
                    row += batch.num_rows
                if row < end:
                    error = broken(f"{shard.name}: row group {group} ends {end - row} rows early")
            except Exception as problem:
                error = failure(shard, storage, problem)
                if is_damage(problem):
                    error = broken(f"{shard.name}: row group {group} is damaged ({problem})")
                else:
                    unreadable = error
        if error is not None:
            first = first or error
            yield from tables(
                (Clip(clip_id(shard, key), shard.uri, error=error) for key in range(row, end)), carried
            )
        row = end
    if first is not None:
        yield shard_row(shard, first, carried)


def _table(batch: pa.RecordBatch, audio: int, first_row: int, shard: Shard, carried: pa.Schema) -> pa.Table:
    """A batch in the columns of `read_schema`; the bytes of the audio are never touched by Python."""
    rows = batch.num_rows
    column = batch.column(audio)
    source = pa.nulls(rows, pa.string())
    if pa.types.is_struct(column.type):
        # struct_field heeds the struct's own nulls, StructArray.field does not.
        data = pc.struct_field(column, "bytes")
        if column.type.get_field_index("path") >= 0:
            source = _sources(pc.struct_field(column, "path"), data, shard)
    else:
        data = column
    values = [(name, batch.column(i)) for i, name in enumerate(batch.schema.names) if i != audio]
    arrays, extra = conform_columns(values, rows, carried)
    absent = pc.and_(data.is_null(), source.is_null())
    columns: list[Any] = [
        pa.array([clip_id(shard, first_row + i) for i in range(rows)], pa.string()),
        pa.repeat(pa.scalar(shard.uri, pa.string()), rows),
        data.cast(pa.large_binary()),
        source,
        pa.nulls(rows, pa.float64()),
        pa.nulls(rows, pa.float64()),
        pa.array([_NO_AUDIO if missing else None for missing in absent.to_pylist()], ERROR),
        *arrays,
        extra,
    ]
    return pa.Table.from_arrays(columns, schema=read_schema(carried))


def _sources(paths: pa.Array, data: pa.Array, shard: Shard) -> pa.Array:
    """Where the audio of rows without bytes is; null for rows that carry their bytes."""
    if data.null_count == 0:
        return pa.nulls(len(paths), pa.string())
    wanted = pc.if_else(data.is_null(), paths, pa.scalar(None, paths.type))
    return pa.array([resolve(shard, path) if path else None for path in wanted.to_pylist()], pa.string())


def _audio_index(schema: pa.Schema) -> int | None:
    """The audio column: a struct with `bytes` (Hugging Face datasets), else a binary column."""
    structs = [
        index
        for index, column in enumerate(schema)
        if pa.types.is_struct(column.type)
        and column.type.get_field_index("bytes") >= 0
        and _is_binary(column.type.field("bytes").type)
    ]
    if structs:
        return min(structs, key=lambda index: (schema.field(index).name != "audio", index))
    binary = {column.name: index for index, column in enumerate(schema) if _is_binary(column.type)}
    for name in _AUDIO_NAMES:
        if name in binary:
            return binary[name]
    return next(iter(binary.values())) if len(binary) == 1 else None


def _is_binary(type: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type) or pa.types.is_binary_view(type))


def _without_audio(shard: Shard, schema: pa.Schema) -> str:
    columns = ", ".join(f"{column.name} ({column.type})" for column in schema) or "none"
    return (
        f"{shard.name} has no audio column: wanted is a struct with a binary field `bytes`, a binary column "
        f"named one of {', '.join(_AUDIO_NAMES)}, or a single binary column; its columns are: {columns}"
    )
