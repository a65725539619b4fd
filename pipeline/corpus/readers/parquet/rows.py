"""Batches of a table of Arrow as tables of clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough, conform_columns, plain
from pipeline.corpus.readers.parquet.arrays import encoded, is_decoded
from pipeline.corpus.readers.parquet.columns import Columns, is_text, without_sound_files
from pipeline.errors import ClipError, Code, Stage
from pipeline.schema import ERROR, read_schema
from pipeline.storage import resolve, without_credentials

SPLIT = "split"
_NO_AUDIO = ClipError(Stage.READ, Code.NO_AUDIO, "the row's audio is null").as_row()
_BAD_PATH = ClipError(
    Stage.READ, Code.BAD_RECORD, "the row's path of its audio is not text in UTF-8"
).as_row()

Errors = list[dict[str, str] | None]


@dataclass(frozen=True)
class Rows:
    """The rows of a shard, the number of each its clip's key.

    Attributes:
        columns: of the shard; `audio` is one of them.
        split: of the data set, which becomes a column where the table has one.
    """

    columns: Columns
    shard: Shard
    passthrough: Passthrough
    split: str | None = None

    def table(self, batch: pa.RecordBatch, first_row: int) -> pa.Table:
        """A batch in the columns of `read_schema`; the bytes of the audio are never touched by Python."""
        rows, shard = batch.num_rows, self.shard
        errors: Errors = [None] * rows
        data, source = self._audio(batch.column(self.columns.audio), errors)
        names = batch.schema.names
        values = [(names[index], self._shown(batch, index)) for index in self.columns.others]
        if self.split is not None and self.passthrough.name(SPLIT) and SPLIT not in names:
            values.append((SPLIT, pa.repeat(pa.scalar(self.split), rows)))
        arrays, extra = conform_columns(values, rows, self.passthrough)
        for row, absent in enumerate(pc.and_(data.is_null(), source.is_null()).to_pylist()):
            if absent:
                errors[row] = errors[row] or _NO_AUDIO
        columns: list[Any] = [
            pa.array([shard.clip_id(first_row + i) for i in range(rows)], pa.string()),
            pa.repeat(pa.scalar(shard.uri, pa.string()), rows),
            data.cast(pa.large_binary()),
            source,
            pa.nulls(rows, pa.float64()),
            pa.nulls(rows, pa.float64()),
            pa.array(errors, ERROR),
            *arrays,
            extra,
        ]
        return pa.Table.from_arrays(columns, schema=read_schema(self.passthrough.schema))

    def _audio(self, column: pa.Array, errors: Errors) -> tuple[pa.Array, pa.Array]:
        """The bytes of each clip, or where they are."""
        nothing = pa.nulls(len(column), pa.string())
        if is_decoded(column.type):
            return encoded(column, errors), nothing
        if is_text(column.type):
            absent = pa.nulls(len(column), pa.large_binary())
            return absent, sources(column, absent, self.shard, errors)
        if not pa.types.is_struct(column.type):
            return column, nothing
        # struct_field heeds the struct's own nulls, StructArray.field does not.
        data = pc.struct_field(column, "bytes")
        if column.type.get_field_index("path") < 0:
            return data, nothing
        return data, sources(pc.struct_field(column, "path"), data, self.shard, errors)

    def _shown(self, batch: pa.RecordBatch, index: int) -> pa.Array:
        """A column as it passes through. Where the audio is may be signed, which is for storage to know."""
        column = without_sound_files(batch.column(index))
        if index != self.columns.audio:
            return column
        try:
            return pa.array([path and without_credentials(path) for path in column.to_pylist()], pa.string())
        except UnicodeDecodeError:  # of a damaged file: what holds it is an error row
            return pa.nulls(len(column), pa.string())


def passing(schema: pa.Schema, columns: Columns, split: str | None) -> pa.Schema:
    """The columns that pass through, in plain types."""
    found = [(schema.field(index).name, plain(schema.field(index).type)) for index in columns.others]
    more = [(SPLIT, pa.string())] if split is not None and SPLIT not in schema.names else []
    return pa.schema([*found, *more])


def sources(paths: pa.Array, data: pa.Array, shard: Shard, errors: Errors) -> pa.Array:
    """Where the audio of rows without bytes is; null for rows that carry their bytes."""
    found: list[str | None] = [None] * len(paths)
    for row in pc.indices_nonzero(data.is_null()).to_pylist():
        try:
            path = paths[row].as_py()
            found[row] = resolve(shard.uri, path) if path else None
        except (UnicodeDecodeError, AttributeError, TypeError):  # not UTF-8, or no text at all
            errors[row] = _BAD_PATH
    return pa.array(found, pa.string())
