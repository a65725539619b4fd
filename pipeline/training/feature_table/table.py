"""A feature table, read: its files, what is known of each clip, and the digest that it is known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import pyarrow as pa

from pipeline.corpus.columns import Passthrough, reserved_names
from pipeline.errors import JobError
from pipeline.storage import Storage
from pipeline.table.ledger import Ledger
from pipeline.table.log.records import FileRecord
from pipeline.table.reader import read_batches
from pipeline.table.scan import held_schema
from pipeline.training.feature_table.schema import FEATURES

_ROWS = 4096  # of a batch, at most
_BLOCK_BYTES = 256 << 10  # fetched at once: between the columns that are read lie features, which are not


class Rows(NamedTuple):
    """Rows of one file, that begin with its row `first`; `file` is its place among the table's files."""

    file: int
    first: int
    batch: pa.RecordBatch


class FeatureTable:
    """A table that `prepare` made, as it is now.

    Raises:
        JobError: there is none in this place.
    """

    def __init__(self, place: str, storage: Storage) -> None:
        self._storage, self._ledger = storage, Ledger(storage.normalise(place).rstrip("/"), storage)
        identity = self._ledger.identity()
        if identity is None or "features" not in identity["models"]:
            raise JobError(f"{place} is no feature table; prepare makes one.")
        self.place = place
        self._identity = identity
        self._records: list[FileRecord] = self._ledger.files()

    @property
    def speed(self) -> float:
        """How many times as fast the recordings are played."""
        return float(self._identity["speed"])

    @property
    def num_rows(self) -> int:
        """Clips, those that are errors among them."""
        return sum(record.rows for record in self._records)

    @cached_property
    def files(self) -> list[str]:
        """URIs, in the order of their names. Rows that are errors have files of their own."""
        return [self._ledger.uri_of(record) for record in self._records]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the table's settings and of what its log says of its files: another where a row came."""
        facts = {"identity": self._identity, "files": [record.to_json() for record in self._records]}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @cached_property
    def _passthrough(self) -> Passthrough:
        return Passthrough(held_schema(self._identity) or pa.schema([]), reserved_names(FEATURES))

    def column(self, name: str) -> str:
        """The table's name of an input column: the input's `text` is `ref_text`.

        Raises:
            JobError: no shard of the input has such a column; says which there are.
        """
        found = self._passthrough.name(name)
        if found is None:
            known = ", ".join(self._passthrough.types) or "none"
            raise JobError(
                f"{self.place}: the input has no column {name!r}; its columns in the table: {known}."
            )
        return found

    def has_column(self, name: str) -> bool:
        """Whether the input has a column of this name."""
        return self._passthrough.name(name) is not None

    def rows(self, columns: Sequence[str]) -> Iterator[Rows]:
        """All rows, file by file, with these columns of the table: any but the features themselves."""
        for number, uri in enumerate(self.files):
            first = 0
            for batch in read_batches(uri, self._storage, columns, rows=_ROWS, block=_BLOCK_BYTES):
                yield Rows(number, first, batch)
                first += batch.num_rows
