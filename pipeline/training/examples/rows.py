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
from pipeline.training.feature_table.schema import FEATURES

# `silent`: without an error, and without features. `file`, `row`: where these lie. A column of the input may
# have any other name.
OWN_COLUMNS: dict[str, pa.DataType] = {
    "clip.id": pa.string(),
    "clip.speed": pa.float32(),
    "clip.duration_s": pa.float64(),
    "clip.frames": pa.int32(),
    "clip.code": pa.string(),
    "clip.message": pa.string(),
    "clip.silent": pa.bool_(),
    "clip.file": pa.int32(),
    "clip.row": pa.int32(),
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
    def read(
        cls,
        files: Iterable[str],
        storage: Storage,
        columns: Sequence[str] = (),
        *,
        optional: Sequence[str] = (),
    ) -> Rows:
        """Reads the rows of these files, in the order of the files' names.

        Args:
            columns: of the input, named as there or as in the table: the input's `text` is the table's
                `ref_text`.
            optional: read too, where a file has them.

        Raises:
            JobError: no file has such a column, or it holds no text and no numbers.
            StorageError: a file cannot be read.
        """
        listed = sorted(files)
        asked = list(dict.fromkeys([*columns, *optional]))
        with ThreadPoolExecutor(_FILES) as threads:
            reading = threads.map(_read, range(len(listed)), listed, repeat(storage), repeat(asked))
            tables, names = zip(*reading, strict=True) if listed else ((), ())
        held = {name for file in names for name in file}
        there = [column for column in asked if column in columns or _find(column, held) is not None]
        for column in columns:
            if listed and _find(column, held) is None:
                raise _no_column(column, held)
        schema = pa.schema([*OWN_COLUMNS.items(), *((column, pa.string()) for column in there)])
        read = [table.select(schema.names) for table in tables]
        return cls(listed, pa.concat_tables([schema.empty_table(), *read]))

    def where(self, mask: npt.NDArray[np.bool_]) -> Rows:
        """The rows for which a mask is true."""
        return replace(self, table=self.table.filter(pa.array(mask)))

    def once(self) -> Rows:
        """One row of each clip, that of its own speed, or the nearest to it."""
        order = np.argsort(np.abs(self.table["clip.speed"].to_numpy() - 1), kind="stable")
        ids = self.table["clip.id"].take(pa.array(order))
        turns = pa.table([ids, pa.array(np.arange(len(self)))], ["id", "turn"])
        first = turns.group_by("id").aggregate([("turn", "min")])["turn_min"].to_numpy()
        return replace(self, table=self.table.take(pa.array(np.sort(order[first]))))

    def split(self, share: float, speakers: str) -> tuple[Rows, Rows]:
        """The rows to train on, and those held out: all rows of a share of the speakers, chosen by a hash of
        their names, so that a corpus that grows keeps them apart. Of two or more, at least one is held out
        and at least one stays.

        Args:
            share: 0: nothing is held out.
            speakers: column of their names. A row without one goes by its clip_id, and so does every row
                where fewer than two are named.
        """
        names = self.table["clip.id"]
        if len(self.names(speakers)) > 1:
            names = pc.coalesce(self.table[speakers], names)
        encoded = names.combine_chunks().dictionary_encode()
        drawn = np.array([_fraction(name) for name in encoded.dictionary.to_pylist()])
        chosen = np.zeros(len(drawn), np.bool_)
        if share and len(drawn) > 1:
            chosen = (drawn < max(share, np.nextafter(drawn.min(), 1))) & (drawn < drawn.max())
        held_out = chosen[encoded.indices.to_numpy()]
        return self.where(~held_out), self.where(held_out)

    def names(self, column: str) -> set[str]:
        """The different values of a column of the input; none where it was not there."""
        if column not in self.table.column_names:
            return set()
        return set(self.table[column].drop_null().unique().to_pylist())


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
    own = [read[name] for name in ("clip_id", "speed", "duration_s", "frames")]
    own += [pc.struct_field(error, name) for name in ("code", "message")]
    own.append(pc.and_(read["log_mel_mean"].combine_chunks().is_null(), error.is_null()))
    own += [np.full(len(read), number), np.arange(len(read))]
    table = pa.table(own, list(OWN_COLUMNS)).cast(pa.schema(OWN_COLUMNS))
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
    wanted = folded(output_name(column, _reserved()))
    return next((name for name in names if folded(name) == wanted), None)


def _no_column(column: str, names: Collection[str]) -> JobError:
    of_input = sorted(name for name in names if folded(name) not in _reserved())
    like = get_close_matches(column, [name.removeprefix("ref_") for name in of_input], 1)
    return JobError(
        f"the clips have no column {column!r}"
        + (f", but one {like[0]!r}" if like else "")
        + f"; there are: {', '.join(of_input) or 'none of the input'}."
    )


def _reserved() -> frozenset[str]:
    return reserved_names() | {folded(name) for name in FEATURES}


def _fraction(name: str) -> float:
    """A number in [0, 1) that is the same for a name on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest()) / (1 << 48)
