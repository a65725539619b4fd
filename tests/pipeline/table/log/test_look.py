"""Whoever changes files of the table by hand, or copies its log in part, is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import JobError
from pipeline.storage import Storage
from tests.pipeline.table.outputs import STORAGE, A, B, Output


def test_a_file_of_another_size_is_refused(table: Output) -> None:
    table.finished("run1", A)
    (file,) = table.folder.glob("*.parquet")
    whole = file.read_bytes()
    table.ledger.open()
    os.truncate(file, 100)
    with pytest.raises(JobError, match=rf"1 of .* 1 files .*{file.name} has 100 bytes, not {len(whole)}\)"):
        table.ledger.open()
    file.write_bytes(whole)
    table.ledger.open()
    file.unlink()
    with pytest.raises(JobError, match=rf"{file.name} is gone\)"):
        table.ledger.open()


def test_a_look_costs_one_listing_of_the_table(table: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    table.finished("run1", A, B)
    asked: list[str] = []
    read = Storage._read

    def counted(storage: Storage, uri: str, ask: object) -> object:
        asked.append(uri)
        return read(storage, uri, ask)  # type: ignore[arg-type]

    monkeypatch.setattr(Storage, "_read", counted)
    table.ledger.open()
    assert [uri for uri in asked if uri.startswith(str(table.folder))] == [str(table.folder)]


@pytest.mark.parametrize("closed", [True, False])
def test_files_of_a_run_that_no_record_names_are_told_and_stay(
    table: Output, closed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    table.finished("run1", A)
    table.begin("run2", B)
    lost, noted = table.write("run2", [(B, 0)]), table.write("run2", [(B, 1)], part=1, commit=False)
    (table.folder / "theirs.parquet").write_bytes(b"theirs")
    if closed:
        table.ledger.finish("run2", {})
    table.ledger.open()
    assert caplog.text == ""
    STORAGE.remove(f"{table.ledger.home}/files/run2{'.jsonl' if closed else ''}", recursive=not closed)
    table.ledger.open()
    assert f"1 files of this table are not in its log {table.ledger.home}" in caplog.text
    assert f"({lost.name})" in caplog.text
    assert lost.exists()
    assert not noted.exists()
    assert Path(table.folder, "theirs.parquet").exists()
