"""The rows of feature tables without their features: what examples are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import repeat

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.columns import folded, output_name, reserved_names
from pipeline.errors import JobError
from pipeline.storage import Storage
from pipeline.table.reader import open_parquet

# `silent`: a clip without an error that has no features. `file`, `row`: where these lie.
OWN_COLUMNS: dict[str, pa.DataType] = {
    "clip_id": pa.string(),
    "speed": pa.float32(),
    "duration_s": pa.float64(),
    "frames": pa.int32(),
    "code": pa.string(),
    "message": pa.string(),
    "silent": pa.bool_(),
    "file": pa.int32(),
    "row": pa.int32(),
}
_READ = ("clip_id", "speed", "duration_s", "frames", "error", "log_mel_mean")
_FILES = 8  # read at once
_BLOCK_BYTES = 64 << 10  # fetched at once: megabytes of features lie between two stretches of these columns
_ROWS = 16_384


@dataclass(frozen=True)
class Rows:
    """The rows of one or several feature tables.

    Attributes:
        files: URIs of the tables' files.
        table: `OWN_COLUMNS`, and as text those of the input that were asked for.
    """

    files: Sequence[str]
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @classmethod
    def read(cls, files: Iterable[str], storage: Storage, columns: Sequence[str] = ()) -> Rows:
        """Reads the rows of these files, in the order of the files' names.

        Args:
            columns: of the input, named as there or as in the table: the input's `text` is the table's
                `ref_text`.

        Raises:
            JobError: no file has such a column, or it holds no text and no numbers.
            StorageError: a file cannot be read.
        """
        listed = sorted(files)
        with ThreadPoolExecutor(_FILES) as threads:
            reading = threads.map(_read, range(len(listed)), listed, repeat(storage), repeat(columns))
            tables, names = zip(*reading, strict=True) if listed else ((), ())
        held = {name for file in names for name in file}
        for column in columns:
            if listed and _find(column, held) is None:
                raise _no_column(column, held)
        schema = pa.schema([*OWN_COLUMNS.items(), *((column, pa.string()) for column in columns)])
        return cls(listed, pa.concat_tables([schema.empty_table(), *tables]))

    def where(self, mask: npt.NDArray[np.bool_]) -> Rows:
        """The rows for which a mask is true."""
        return replace(self, table=self.table.filter(pa.array(mask)))

    def once(self) -> Rows:
        """One row of each clip, whatever its speeds: the first."""
        numbered = pa.table({"clip_id": self.table["clip_id"], "at": np.arange(len(self))})
        first = np.sort(numbered.group_by("clip_id").aggregate([("at", "min")])["at_min"].to_numpy())
        return replace(self, table=self.table.take(pa.array(first)))

    def split(self, share: float, speakers: str | None) -> tuple[Rows, Rows]:
        """The rows to train on, and those held out: all rows of a share of the speakers, chosen by a hash of
        their names, so that a corpus that grows keeps them apart.

        Args:
            speakers: column of their names; a row without one, and every row if None, goes by its clip_id.
        """
        names = self.table["clip_id"]
        if speakers is not None:
            names = pc.coalesce(self.table[speakers], names)
        encoded = names.combine_chunks().dictionary_encode()
        chosen = np.array([_fraction(name) < share for name in encoded.dictionary.to_pylist()], np.bool_)
        held_out = chosen[encoded.indices.to_numpy()] if len(self) else np.zeros(0, np.bool_)
        return self.where(~held_out), self.where(held_out)


def _read(number: int, uri: str, storage: Storage, columns: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """The rows of one file, and the names of all its columns."""
    with open_parquet(uri, storage, block=_BLOCK_BYTES) as file:
        names = file.schema_arrow.names
        found = {column: _find(column, names) for column in columns}
        wanted = dict.fromkeys([*_READ, *(name for name in found.values() if name is not None)])
        schema = pa.schema([file.schema_arrow.field(name) for name in wanted])
        batches = file.iter_batches(_ROWS, columns=list(wanted), use_threads=False)
        read = pa.Table.from_batches((batch.select(schema.names) for batch in batches), schema)
    error = read["error"].combine_chunks()
    values = {name: read[name] for name in ("clip_id", "speed", "duration_s", "frames")}
    values |= {name: pc.struct_field(error, name) for name in ("code", "message")}
    values["silent"] = pc.and_(read["log_mel_mean"].combine_chunks().is_null(), error.is_null())
    values |= {"file": np.full(len(read), number, np.int32), "row": np.arange(len(read), dtype=np.int32)}
    table = pa.table(values).cast(pa.schema(OWN_COLUMNS))
    for column, name in found.items():
        table = table.append_column(column, _texts(column, read, name, uri))
    return table, names


def _texts(column: str, read: pa.Table, name: str | None, uri: str) -> pa.Array | pa.ChunkedArray:
    if name is None:
        return pa.nulls(len(read), pa.string())
    try:
        return read[name].cast(pa.string())
    except pa.ArrowException as problem:
        kind = read.schema.field(name).type
        raise JobError(f"the column {column!r} holds {kind}, not text or numbers (in {uri}).") from problem


def _find(column: str, names: Collection[str]) -> str | None:
    """The table's name of a column."""
    wanted = folded(output_name(column, reserved_names()))
    return next((name for name in names if folded(name) == wanted), None)


def _no_column(column: str, names: Collection[str]) -> JobError:
    of_input = sorted(name for name in names if folded(name) not in reserved_names() | _OF_TABLE)
    like = get_close_matches(column, [name.removeprefix("ref_") for name in of_input], 1)
    return JobError(
        f"the clips have no column {column!r}"
        + (f", but one {like[0]!r}" if like else "")
        + f"; there are: {', '.join(of_input) or 'none of the input'}."
    )


_OF_TABLE = frozenset(("speed", "log_mel_mean", "log_mel_std"))


def _fraction(name: str) -> float:
    """A number in [0, 1) that is the same for a name on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest()) / (1 << 48)
