"""Tables of x-vectors: which files, which columns, which rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import JobError
from pipeline.speakers.embeddings import EmbeddingTable
from pipeline.storage import Storage, StorageOptions

STORAGE = Storage(StorageOptions())


def write(path: Path, kind: pa.DataType, *embeddings: object, **columns: list[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = [f"{path.stem}-{i}" for i in range(len(embeddings))]
    pq.write_table(pa.table({"clip_id": ids, "embedding": pa.array(embeddings, kind), **columns}), path)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32(), 2), pa.list_(pa.float64()), pa.large_list(pa.float32())]
)
def test_unit_vectors_of_the_rows_that_have_one(tmp_path: Path, kind: pa.DataType) -> None:
    rows = [[3.0, 4.0], None, [0.0, 0.0], [0.0, -2.0], [float("nan"), 1.0]]
    write(tmp_path / "t.parquet", kind, *rows, speaker=list("abcde"))
    table = EmbeddingTable.open(str(tmp_path / "t.parquet"), STORAGE)
    (batch,) = table.batches("duration_s", "speaker")
    assert batch.present.tolist() == [True, False, False, True, False]
    np.testing.assert_allclose(batch.vectors, [[0.6, 0.8], [0, -1]], rtol=1e-6)
    assert batch.vectors.dtype == np.float32
    assert batch.rows.schema.names == ["clip_id", "speaker"]
    assert batch.rows.column("speaker").to_pylist() == list("abcde")


def test_directory_glob_and_file(tmp_path: Path) -> None:
    kind = pa.list_(pa.float32(), 2)
    for name in ("a.parquet", "b.parquet", "_run/c.parquet", "below/d.parquet"):
        write(tmp_path / name, kind, [1.0, 0.0])
    (tmp_path / "notes.txt").write_text("no table")

    def names(uri: str) -> list[str]:
        return [Path(file).stem for file in EmbeddingTable.open(str(tmp_path / uri), STORAGE).files]

    assert names("") == ["a", "b"]
    assert names("*.parquet") == ["a", "b"]
    assert names("*/*.parquet") == ["d"]
    assert names("b.parquet") == ["b"]


@pytest.mark.parametrize(
    ("column", "kind", "message"),
    [
        ("text", pa.string(), r"has no column 'embedding' \(it has clip_id, text\).*jobs/embed\.py"),
        ("embedding", pa.string(), "column 'embedding' of .* is string, not a list of floats"),
        ("embedding", pa.list_(pa.string()), "is list<.*string>, not a list of floats"),
    ],
)
def test_tables_without_x_vectors(tmp_path: Path, column: str, kind: pa.DataType, message: str) -> None:
    pq.write_table(pa.table({"clip_id": ["a"], column: pa.array([None], kind)}), tmp_path / "t.parquet")
    with pytest.raises(JobError, match=message):
        EmbeddingTable.open(str(tmp_path), STORAGE)


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"--table .*absent: .*absent does not exist"):
        EmbeddingTable.open(str(tmp_path / "absent"), STORAGE)
    with pytest.raises(JobError, match="no Parquet file there"):
        EmbeddingTable.open(str(tmp_path), STORAGE)
    (tmp_path / "t.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(JobError, match=r"--table .*: .*Parquet"):
        EmbeddingTable.open(str(tmp_path), STORAGE)


def test_embeddings_of_different_models_do_not_mix(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", pa.list_(pa.float32(), 2), [1.0, 0.0])
    write(tmp_path / "b.parquet", pa.list_(pa.float32(), 3), [1.0, 0.0, 0.0])
    with pytest.raises(
        JobError, match=r"b\.parquet: its embeddings have 3 numbers, those of the files before 2"
    ):
        list(EmbeddingTable.open(str(tmp_path), STORAGE).batches())
    write(tmp_path / "a.parquet", pa.list_(pa.float32()), [1.0, 0.0], [1.0])
    with pytest.raises(JobError, match=r"a\.parquet: its embeddings have different lengths \(1 to 2\)"):
        list(EmbeddingTable.open(str(tmp_path), STORAGE).batches())
