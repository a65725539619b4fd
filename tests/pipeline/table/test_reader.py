"""Which files a table has, and what they hold."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import JobError
from pipeline.storage import StorageError
from pipeline.table.reader import read_batches, read_footer, table_files
from tests.pipeline.table.outputs import SCHEMA, STORAGE, A, Output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.parquet", "a.parquet", ".c.parquet", "_d.parquet", "_run/e.parquet", "below/f.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"clip_id": [name, "x"]}), tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    return tmp_path


def files(uri: object) -> list[str]:
    return [file.rsplit("/", 1)[-1] for file in table_files(str(uri), STORAGE)]


def test_a_directory_a_glob_and_a_file(folder: Path) -> None:
    assert files(folder) == ["a.parquet", "b.parquet"]
    assert files(folder / "*") == ["a.parquet", "b.parquet"]
    assert files(folder / "*" / "*.parquet") == ["f.parquet"]
    assert files(folder / "_d.parquet") == ["_d.parquet"]
    assert files(folder / "no*") == []
    with pytest.raises(StorageError, match="does not exist") as caught:
        files(folder / "no")
    assert caught.value.missing


def test_folders_above_may_have_any_name(folder: Path) -> None:
    home = folder / "_run" / "out"
    table = Output(home)
    table.ledger.declare({})
    table.finished("run1", A)
    assert len(files(home)) == len(files(home / "*")) == 1
    table.ledger.open()
    (home / "thesis.docx").write_text("")
    STORAGE.remove(f"{table.ledger.home}/table.json")
    with pytest.raises(JobError, match=r"thesis\.docx"):
        table.ledger.clear()
    table.release()


def test_a_table_with_records_has_the_committed_files(table: Output) -> None:
    table.ledger.declare({})
    table.finished("run1", A)
    kept = table.write("run2", [(A, 5)])
    table.write("run2", [(A, 6)], part=1, commit=False)
    (table.folder / "other.parquet").write_bytes(b"")
    assert files(table.folder) == ["run1-0-000000-x.parquet", kept.name]


def test_a_data_file_that_is_gone_is_named_not_the_table(table: Output) -> None:
    table.begin("run1", A)
    file = table.write("run1", [(A, 0)])
    file.unlink()
    with pytest.raises(StorageError, match=f"{file.name} has a record in the table, but is gone") as caught:
        table.ledger.plan([A], "run9")
    assert not caught.value.missing
    with pytest.raises(JobError, match=r"1 of the table's 1 files are gone .*Put them back"):
        table.ledger.open()


def test_rows_and_columns(table: Output) -> None:
    file = str(table.write("run1", [(A, 0), (A, 1), (A, 2)]))
    footer = read_footer(file, STORAGE)
    assert (footer.uri, footer.rows) == (file, 3)
    assert footer.schema.equals(SCHEMA, check_metadata=True)
    batches = list(read_batches(file, STORAGE, ["language", "none", "clip_id"], rows=2))
    assert [batch.schema.names for batch in batches] == [["language", "clip_id"]] * len(batches)
    assert [clip for batch in batches for clip in batch["clip_id"].to_pylist()] == [
        "a.tar#0",
        "a.tar#1",
        "a.tar#2",
    ]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"junk", lambda data: data[:-20]])
def test_what_is_no_parquet_is_a_storage_error_that_names_it(table: Output, damage: object) -> None:
    file = table.write("run1", [(A, 0)])
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    with pytest.raises(StorageError, match=file.name):
        read_footer(str(file), STORAGE)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"null", b'"models"', b"{", b"\xff", b"[" * 100_000, b'{"format": "x"}'),
        *(b'{"models": []}', b'{"passthrough": 5}'),
    ],
)
def test_a_damaged_identity_is_said(table: Output, content: bytes) -> None:
    """Else the table would look as if nothing was ever written."""
    table.ledger.declare({})
    STORAGE.write_bytes(f"{table.ledger.home}/table.json", content)
    with pytest.raises(JobError, match=r"table\.json, which says how the table was made, is damaged"):
        table.ledger.identity()
