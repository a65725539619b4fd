"""x-vectors of a table that the pipeline wrote, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import JobError
from pipeline.storage import Storage, StorageError
from pipeline.table.reader import Footer, read_batches, read_footer, table_files

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddingBatch:
    """Some rows of the table, in its order.

    Attributes:
        rows: the columns that were asked for, `clip_id` first.
        present: (rows,), whether a row has an embedding that can be used: finite, and not all zeros.
        vectors: (rows with an embedding, width), of unit length.
    """

    rows: pa.RecordBatch
    present: npt.NDArray[np.bool_]
    vectors: Vectors


@dataclass(frozen=True)
class EmbeddingTable:
    """Parquet files with the columns `clip_id` and `embedding`.

    Attributes:
        rows: of all files, those without an embedding among them.
        columns: that every file has.
    """

    files: Sequence[str]
    storage: Storage
    rows: int
    columns: frozenset[str]

    @classmethod
    def open(cls, uri: str, storage: Storage) -> EmbeddingTable:
        """The files that a directory's records name, those of a glob, or one file; reads footers only.

        Raises:
            JobError: no such table, or one without embeddings.
        """
        try:
            files = table_files(uri, storage)
            footers = [read_footer(file, storage) for file in files]
        except StorageError as problem:
            raise JobError(f"--table {uri}: {problem}.") from problem
        if not footers:
            raise JobError(f"--table {uri}: no Parquet file there.")
        for footer in footers:
            _require_embeddings(footer, uri)
        columns = frozenset.intersection(*(frozenset(footer.schema.names) for footer in footers))
        return cls(files, storage, sum(footer.rows for footer in footers), columns)

    def batches(self, *columns: str) -> Iterator[EmbeddingBatch]:
        """All rows; beside `clip_id` with those of `columns` that the table has.

        Raises:
            JobError: a file that cannot be read to its end, or embeddings of different widths.
        """
        wanted = ["clip_id", *(name for name in columns if name in self.columns)]
        width: int | None = None
        for file in self.files:
            for batch in self._read(file, [*wanted, "embedding"]):
                present, vectors = _unit_vectors(batch.column("embedding"), file)
                if len(vectors):
                    width = width or vectors.shape[1]
                    if vectors.shape[1] != width:
                        raise JobError(
                            f"{file}: its embeddings have {vectors.shape[1]} numbers, those of the files "
                            f"before {width}; embeddings of different models cannot be compared."
                        )
                yield EmbeddingBatch(batch.select(wanted), present, vectors)

    def _read(self, file: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            yield from read_batches(file, self.storage, columns)
        except StorageError as problem:
            raise JobError(f"--table: {problem}.") from problem


def _require_embeddings(footer: Footer, uri: str) -> None:
    schema = footer.schema
    for name in ("clip_id", "embedding"):
        if name not in schema.names:
            raise JobError(
                f"--table {uri}: {footer.uri} has no column '{name}' (it has {', '.join(schema.names)}). "
                "Tables with x-vectors come from jobs/embed.py, or jobs/annotate.py --embed."
            )
    kind = schema.field("embedding").type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not pa.types.is_floating(kind.value_type):
        raise JobError(f"--table {uri}: column 'embedding' of {footer.uri} is {kind}, not a list of floats.")


def _unit_vectors(embeddings: pa.Array, file: str) -> tuple[npt.NDArray[np.bool_], Vectors]:
    """Which rows have an embedding, and theirs; see `EmbeddingBatch`."""
    valid = embeddings.is_valid().to_numpy(zero_copy_only=False)
    given = embeddings.drop_null()
    widths = pc.list_value_length(given).unique().to_pylist()
    if len(widths) > 1:
        raise JobError(f"{file}: its embeddings have different lengths ({min(widths)} to {max(widths)}).")
    if not widths or not widths[0]:
        return np.zeros(len(embeddings), bool), np.zeros((0, 0), np.float32)
    vectors = given.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, widths[0])
    lengths = np.linalg.norm(vectors, axis=1)
    usable = np.isfinite(lengths) & (lengths > 0)
    valid[valid] = usable
    return valid, vectors[usable] / lengths[usable, None]
