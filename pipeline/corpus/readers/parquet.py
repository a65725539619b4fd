"""Parquet shards: one clip a row, the audio inside the row or beside the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.corpus.clips import Clip
from pipeline.corpus.columns import conform_columns, plain
from pipeline.corpus.listing import Shard
from pipeline.corpus.readers.base import (
    TABLE_BYTES,
    TABLE_ROWS,
    DeliveryError,
    ShardFile,
    broken,
    clip_id,
    failure,
    open_shard,
    resolve,
    shard_row,
    tables,
)
from pipeline.corpus.readers.parquet_footer import (
    contradicts_itself,
    metadata_of,
    read_footer,
    with_true_counts,
    without_arrow_schema,
)
from pipeline.errors import ClipError, Code, JobError, Stage
from pipeline.schema import ERROR, read_schema
from pipeline.storage import Storage

_AUDIO_NAMES = ("audio", "bytes", "audio_bytes", "wav", "flac", "mp3")
_NO_AUDIO = ClipError(Stage.READ, Code.NO_AUDIO, "the row's audio is null").as_row()
_BAD_PATH = ClipError(
    Stage.READ, Code.BAD_RECORD, "the row's path of its audio is not text in UTF-8"
).as_row()


def parquet_columns(shard: Shard, storage: Storage) -> pa.Schema:
    """The columns beside the audio, in plain types, under the input's names.

    A file that cannot be opened has none: reading it says why. Raises JobError when no column holds audio.
    """
    try:
        with open_shard(shard, storage) as handle:
            schema = open_parquet(handle)[0].schema_arrow
    except Exception:
        return pa.schema([])
    audio = _audio_index(schema)
    if audio is None:
        raise JobError(_without_audio(shard, schema))
    return pa.schema(
        [(column.name, plain(column.type)) for index, column in enumerate(schema) if index != audio]
    )


def open_parquet(handle: ShardFile) -> tuple[pq.ParquetFile, str | None]:
    """The file, and what is wrong with its footer where that could be mended."""
    options: dict[str, Any] = {
        "buffer_size": 8 << 20,
        "pre_buffer": False,
        "page_checksum_verification": True,
    }
    footer: bytes | None = None
    try:
        file = pq.ParquetFile(handle, **options)
    except DeliveryError:
        raise
    except Exception:
        footer = without_arrow_schema(read_footer(handle))
        file = pq.ParquetFile(handle, metadata=metadata_of(footer), **options)
    if not contradicts_itself(file.metadata):
        return file, None
    try:
        footer = with_true_counts(read_footer(handle) if footer is None else footer)
        file = pq.ParquetFile(handle, metadata=metadata_of(footer), **options)
    except DeliveryError:
        raise
    except Exception:
        pass  # then its rows are counted as they come
    return file, "the footer contradicts itself about the number of rows"


def read_parquet(
    shard: Shard, storage: Storage, carried: pa.Schema, *, row_groups: range | None = None
) -> Iterator[pa.Table]:
    """The clips of the shard, or of its `row_groups`, in tables of about `TABLE_BYTES`.

    What cannot be read becomes error rows: of a damaged row group the rows not read before the damage, and
    one row for the shard. After a storage failure nothing more is asked of storage.
    """
    try:
        with open_shard(shard, storage) as handle:
            file, damage = open_parquet(handle)
            first = None if damage is None else broken(f"{shard.name}: {damage}")
            yield from _read(file, handle.size(), first, shard, storage, carried, row_groups)
    except Exception as problem:
        yield shard_row(shard, failure(shard, storage, problem), carried)


def _read(
    file: pq.ParquetFile,
    size: int,
    first: ClipError | None,
    shard: Shard,
    storage: Storage,
    carried: pa.Schema,
    row_groups: range | None,
) -> Iterator[pa.Table]:
    audio = _audio_index(file.schema_arrow)
    if audio is None:
        yield shard_row(shard, broken(_without_audio(shard, file.schema_arrow)), carried)
        return
    groups = range(file.num_row_groups) if row_groups is None else row_groups
    counts = [max(0, file.metadata.row_group(group).num_rows) for group in range(file.num_row_groups)]
    row = sum(counts[: groups.start])
    unreadable: ClipError | None = None
    for group in groups:
        error, end = unreadable, row + counts[group]
        if error is None:
            try:
                for batch in _batches(file, group, counts[group]):
                    yield _table(batch, audio, row, shard, carried)
                    row += batch.num_rows
                if row < end:
                    error = broken(f"{shard.name}: row group {group} ends {end - row} rows early")
            except Exception as problem:
                error = failure(shard, storage, problem, f": row group {group}")
                if isinstance(problem, DeliveryError):
                    unreadable = error
        if error is not None:
            first = first or error
            lost = range(row, min(end, row + size))  # a clip takes more than a byte
            yield from tables((Clip(clip_id(shard, key), shard.uri, error=error) for key in lost), carried)
        row = end
    if first is not None:
        yield shard_row(shard, first, carried)


def _batches(file: pq.ParquetFile, group: int, rows: int) -> Iterator[pa.RecordBatch]:
    """The first `rows` rows of a row group, or as many as there are."""
    per_row = max(1, file.metadata.row_group(group).total_byte_size // max(1, rows))
    size = min(TABLE_ROWS, max(1, TABLE_BYTES // per_row))
    for batch in file.iter_batches(size, row_groups=[group], use_threads=False) if rows else ():
        if batch.num_rows:
            yield batch.slice(0, rows)
        rows -= batch.num_rows
        if rows <= 0 or not batch.num_rows:  # a damaged footer may promise more, without end
            return


def _table(batch: pa.RecordBatch, audio: int, first_row: int, shard: Shard, carried: pa.Schema) -> pa.Table:
    """A batch in the columns of `read_schema`; the bytes of the audio are never touched by Python."""
    rows = batch.num_rows
    column = batch.column(audio)
    source = pa.nulls(rows, pa.string())
    errors: list[dict[str, str] | None] = [None] * rows
    if pa.types.is_struct(column.type):
        # struct_field heeds the struct's own nulls, StructArray.field does not.
        data = pc.struct_field(column, "bytes")
        if column.type.get_field_index("path") >= 0:
            source = _sources(pc.struct_field(column, "path"), data, shard, errors)
    else:
        data = column
    values = [(name, batch.column(i)) for i, name in enumerate(batch.schema.names) if i != audio]
    arrays, extra = conform_columns(values, rows, carried)
    for row, absent in enumerate(pc.and_(data.is_null(), source.is_null()).to_pylist()):
        if absent:
            errors[row] = errors[row] or _NO_AUDIO
    columns: list[Any] = [
        pa.array([clip_id(shard, first_row + i) for i in range(rows)], pa.string()),
        pa.repeat(pa.scalar(shard.uri, pa.string()), rows),
        data.cast(pa.large_binary()),
        source,
        pa.nulls(rows, pa.float64()),
        pa.nulls(rows, pa.float64()),
        pa.array(errors, ERROR),
        *arrays,
        extra,
    ]
    return pa.Table.from_arrays(columns, schema=read_schema(carried))


def _sources(paths: pa.Array, data: pa.Array, shard: Shard, errors: list[dict[str, str] | None]) -> pa.Array:
    """Where the audio of rows without bytes is; null for rows that carry their bytes."""
    sources: list[str | None] = [None] * len(paths)
    for row in pc.indices_nonzero(data.is_null()).to_pylist():
        try:
            path = paths[row].as_py()
            sources[row] = resolve(shard, path) if path else None
        except Exception:  # not UTF-8, or no text at all
            errors[row] = _BAD_PATH
    return pa.array(sources, pa.string())


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
