"""The output table as a stream of rows: its files, the columns they have, and a row at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import JobError
from pipeline.storage import Storage, StorageError
from pipeline.table.reader import Footer, read_batches, read_footer, table_files

Row = Mapping[str, Any]
# Lists of these columns hold structs with at least these fields, whoever wrote the Parquet file.
_FIELDS = {
    "words": ("word", "start_s", "end_s"),
    "aligned_words": ("word", "start_s", "end_s"),
    "segments": ("speaker", "start_s", "end_s"),
}
_BATCH_ROWS = 64
_SLICE_BYTES = 1 << 20  # of a batch becomes Python objects at once: recordings of hours have many words


@dataclass(frozen=True)
class Table:
    """Parquet files (their `footers`) with the columns of docs/table.md, in the order of their names."""

    given: str
    footers: tuple[Footer, ...]
    columns: tuple[str, ...]
    storage: Storage

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(footer.uri for footer in self.footers)

    @property
    def count(self) -> int:
        """Rows, of all files together."""
        return sum(footer.rows for footer in self.footers)

    def require(self, *names: str, purpose: str) -> None:
        """Raises JobError where the table has none of `names`, or has it in another shape."""
        held = [name for name in names if name in self.columns]
        if not held:
            raise JobError(
                f"--table {self.given}: {purpose} needs the column {' or '.join(names)}; "
                f"the table has: {', '.join(self.columns)}."
            )

    def rows(self, columns: Mapping[str, str]) -> Iterator[Row]:
        """Rows with the columns `{name of the value: name in the table}`; None where a file lacks one."""
        for uri in self.files:
            try:
                yield from _rows(uri, columns, self.storage)
            except StorageError as problem:
                raise JobError(f"--table {in_words(problem)}.") from problem


def open_table(given: str, storage: Storage) -> Table:
    """Looks at the footers of all files.

    Raises:
        JobError: no such table, no rows in it, a file that is no Parquet, no clips in it.
    """
    try:
        files = table_files(storage.normalise(given), storage)
        footers = [read_footer(file, storage) for file in files]
    except StorageError as problem:
        raise JobError(f"--table {in_words(problem)}.") from problem
    if not footers:
        raise JobError(f"--table {given}: no Parquet file there.")
    columns: dict[str, None] = {}
    for footer in footers:
        check_columns(footer.schema, footer.uri)
        columns |= dict.fromkeys(footer.schema.names)
    if not any(footer.rows for footer in footers):
        raise JobError(f"--table {given}: the table has no rows, there is nothing to export.")
    return Table(given, tuple(footers), tuple(columns), storage)


def check_columns(schema: pa.Schema, uri: str) -> None:
    """Raises JobError where a file is none of a table, or has other columns than those of docs/table.md."""
    if "clip_id" not in schema.names:
        raise JobError(
            f"--table {uri} is no output of a job: it has no column clip_id but {', '.join(schema.names)}."
        )
    ids = schema.field("clip_id").type
    if not pa.types.is_string(ids) and not pa.types.is_large_string(ids):
        raise JobError(f"--table {uri}: the column clip_id must be string, and is {ids}.")
    for name, fields in _FIELDS.items():
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        inside = getattr(kind, "value_type", None)
        held = [child.name for child in inside] if inside and pa.types.is_struct(inside) else []
        if not set(fields) <= set(held):
            raise JobError(
                f"--table {uri}: the column {name} must be a list of structs with {', '.join(fields)}, "
                f"and is {kind}."
            )


def _rows(uri: str, columns: Mapping[str, str], storage: Storage) -> Iterator[Row]:
    for batch in read_batches(uri, storage, list(dict.fromkeys(columns.values())), rows=_BATCH_ROWS):
        kinds = {field.name: field.type for field in batch.schema}
        held = {name: column for name, column in columns.items() if column in kinds}
        absent = dict.fromkeys(name for name in columns if name not in held)
        step = max(1, batch.num_rows * _SLICE_BYTES // max(1, batch.nbytes))
        for start in range(0, batch.num_rows, step):
            part = batch.slice(start, step)
            values = {column: _python_values(part, column, uri) for column in kinds}
            for column, kind in kinds.items():
                if shorten := _shortening(kind):
                    values[column] = [shorten(value) for value in values[column]]
            for row in range(part.num_rows):
                yield absent | {name: values[column][row] for name, column in held.items()}


def _python_values(rows: pa.RecordBatch, column: str, uri: str) -> list[Any]:
    try:
        values: list[Any] = rows.column(column).to_pylist()
    except (ValueError, OverflowError) as problem:  # text that is no UTF-8, dates beyond the year 9999
        raise JobError(
            f"--table {uri}: a value in the column {column} cannot be read: {problem}."
        ) from problem
    return values


def _shortening(kind: pa.DataType) -> Callable[[Any], Any] | None:
    """What makes single-precision numbers those a person writes: 0.02, not 0.0199999995529…"""
    if pa.types.is_float32(kind):
        return lambda value: None if value is None else float(str(np.float32(value)))
    if pa.types.is_struct(kind):
        parts = {child.name: _shortening(child.type) for child in kind}
        inside = {name: shorten for name, shorten in parts.items() if shorten}
        if inside:
            return lambda value: (
                value and value | {name: shorten(value[name]) for name, shorten in inside.items()}
            )
    elif shorten := _shortening(kind.value_type) if hasattr(kind, "value_type") else None:
        return lambda value: value and [shorten(item) for item in value]
    return None


def in_words(problem: StorageError) -> str:
    """Why a file of the table cannot be read, for a person."""
    if isinstance(problem.__cause__, pa.ArrowInvalid):
        return str(problem).replace(": ArrowInvalid: ", " is no readable Parquet file: ")
    return str(problem)
