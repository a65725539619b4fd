"""Logs that accidents damaged or earlier versions wrote are made whole from the files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from pipeline.corpus.clips import Shard
from pipeline.errors import JobError
from pipeline.table import ledger as ledger_module
from pipeline.table.log.records import FORMAT
from tests.pipeline.table.outputs import (
    STORAGE,
    UNREADABLE,
    A,
    B,
    Output,
    ids_done,
    left,
)


def names(table: Output) -> list[str]:
    return sorted(path.name for path in table.folder.glob("*.parquet"))


def old(table: Output, run_id: str, part: int, clips: list[int]) -> Path:
    """A file as the version before records named it."""
    written = table.write(run_id, [(A, clip) for clip in clips], part=part)
    file = table.folder / f"{run_id}_0_{part:06}-0.parquet"
    written.rename(file)
    STORAGE.remove(f"{table.ledger.home}/files", recursive=True)
    return file


def test_a_table_of_an_earlier_version_that_is_deleted_is_not_read(
    table: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.begin("run1", A)
    old(table, "run1", 0, [0, 1])
    STORAGE.write_bytes(f"{table.ledger.home}/table.json", b'{"models": {}}')
    monkeypatch.setattr(ledger_module, "adopt", Mock(side_effect=AssertionError))
    table.ledger.open(fresh=True)
    table.ledger.clear()
    assert (names(table), table.ledger.identity()) == ([], None)


@pytest.mark.parametrize("dry", [True, False])
def test_a_table_of_an_earlier_version(table: Output, dry: bool) -> None:
    table.begin("run1", A)
    old(table, "run1", 0, [0, 1])
    STORAGE.write_bytes(f"{table.ledger.home}/run1.json", b"{}")
    table.begin("run2", B, A)
    committed, pending, unknown = (old(table, "run2", part, [part + 2]) for part in range(3))
    for mark in ("run2_0_000000.parquet", "run2_0_000001.pending.parquet"):
        STORAGE.write_bytes(f"{table.ledger.home}/commit/run2/{mark}", b"")
    STORAGE.write_bytes(f"{table.ledger.home}/table.json", b'{"models": {}}')
    if not dry:
        table.ledger.open()
        assert (committed.exists(), pending.exists(), unknown.exists()) == (True, False, True)
        assert not (Path(table.ledger.home) / "commit").exists()
        assert table.ledger.identity() == {"models": {}, "format": FORMAT}
        assert len(list((Path(table.ledger.home) / "files").glob("*.jsonl"))) == 2
    assert list(table.rows()) == ["a.tar#0", "a.tar#1", "a.tar#2"]
    work = table.ledger.plan([A, B], "run9")
    assert (work.run_id, work.shards, work.rows_before_kill) == ("run2", [B], {A.uri: 1})
    assert pending.exists() == dry


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize(
    "damage",
    [
        *(b"", b"{", b"\xff\xfe", b'{"file": 3}\n', b'{"file": "x"', b"[]\n", b"[" * 100_000),
        b'{"run_id": 5, "file": "x", "rows": 1, "shards": {"a": 1}}\n',
        b'{"run_id": "run1", "file": "x", "rows": 1, "shards": {"a": null}}\n',
        b'{"run_id": "run1", "file": "x", "missing": {"a": 1}}\n',
    ],
)
def test_a_damaged_record_is_set_aside_and_its_file_counted_again(
    table: Output, merged: bool, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    table.begin("run1", A, B)
    table.write("run1", [(A, 0), (A, 1)], errors={1: UNREADABLE})
    table.write("run1", [(B, 0)], part=1)
    uncommitted = table.write("run1", [(B, 1)], part=2, commit=False)
    if merged:
        table.ledger.records.merge("run1")
    before = table.ledger.files()
    folder = Path(table.ledger.home, "files")
    record = folder / ("run1.jsonl" if merged else "run1/0-000000.jsonl")
    record.write_bytes(damage or record.read_bytes().replace(b'"rows"', b'"row'))
    table.ledger.open()
    assert table.ledger.files() == before
    assert not uncommitted.exists()
    assert f"{record} was damaged and is mended" in caplog.text
    assert len(list(Path(table.ledger.home, "damaged").iterdir())) == 1


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"shard": "/corpus/a.tar"}', "5"])
def test_a_damaged_plan_or_count_costs_a_second_look_and_no_clip(table: Output, damage: str) -> None:
    table.begin("run1", A, B)
    table.write("run1", [(A, 0), (B, 0)])
    table.count("run1", A, 1)
    table.count("run1", B, 1)
    (count, _) = sorted(Path(table.ledger.home, "shard_counts", "run1").iterdir())
    count.write_text(damage)
    assert [shard in (A, B) for shard in table.plan(A, B).shards] == [True]
    plan = Path(table.ledger.home, "shards", "run1.jsonl")
    for line in (damage, plan.read_text().splitlines()[0].replace('"1"', "1")):
        plan.write_text(f"{line}\n")
        work = table.plan(A, B)
        assert work.shards == [A, B]
        assert ids_done(work) == {A.uri: ["a.tar#0"], B.uri: ["b.tar#0"]}


@pytest.mark.parametrize("note", [b"5", b"{", b'{"a": 1}', b"[5]", b'["../kept.parquet"]', b"[" * 100_000])
def test_a_damaged_note_removes_nothing(
    table: Output, tmp_path: Path, note: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    kept = tmp_path / "kept.parquet"
    kept.write_bytes(b"theirs")
    STORAGE.write_bytes(f"{table.ledger.home}/files/run1/1.pending", note)
    table.ledger.open()
    assert kept.exists()
    assert "1.pending is damaged: what it names is left alone" in caplog.text


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/in/b/x#1.tar", "b/x#1.tar"),
        ("/in/b/x.tar", "/in/b/x.tar"),
        ("s3://in/b/x.tar", "x.tar"),
        ("file:///in/%ff.tar", "%ff.tar"),
    ],
)
def test_a_shard_without_a_plan_has_the_name_that_its_clips_have(table: Output, uri: str, name: str) -> None:
    shard = Shard(uri, name, "tar", 1000, "1")
    table.finished("run1", A, shard)
    plan = Path(table.ledger.home, "shards", "run1.jsonl")
    plan.write_text(plan.read_text().splitlines()[0] + "\n{\n")
    assert table.ledger.known_names() == {A.uri: A.name, uri: name}


def test_a_shard_whose_name_is_lost_stops_the_job(table: Output) -> None:
    table.finished("run1", replace(A, name="elsewhere.tar"))
    STORAGE.remove(f"{table.ledger.home}/shards/run1.jsonl")
    with pytest.raises(JobError, match=r"which name the clips of /corpus/a\.tar have.*elsewhere\.tar#0"):
        table.ledger.known_names()


def test_what_a_kill_left_of_a_file_is_not_seen_and_goes(table: Output) -> None:
    table.finished("run1", A)
    home = Path(table.ledger.home)
    kept = sorted(home.rglob("*"))
    for name in (
        *(".run2.json.77-ab.tmp", ".table.json.77-ab.tmp", "files/.run1.jsonl.77-ab.tmp"),
        *("files/run2/.0-000000.jsonl.77-ab.tmp", "files/run2/.ab.pending.77-ab.tmp"),
        *("shards/.run2.jsonl.77-ab.tmp", "shard_counts/run2/.ab.json.77-ab.tmp"),
        "tmp/run2-0-000000-x.parquet.77-ab.tmp",
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("{")
    (home / ".lock.json.77-ab.tmp").write_text("{")  # somebody may just be asking for the lock
    assert left(table.plan(A)) == []
    assert {file for file in home.rglob("*") if file.is_file()} - set(kept) == {home / ".lock.json.77-ab.tmp"}


def test_killed_right_after_its_summary_a_run_leaves_no_counts(table: Output) -> None:
    table.finished("run1", A)
    table.count("run1", A, 2)
    assert left(table.plan(A)) == []
    assert [file for file in Path(table.ledger.home, "shard_counts").rglob("*") if file.is_file()] == []


def test_records_of_the_format_before(table: Output) -> None:
    table.begin("run1", A)
    kept, gone = table.write("run1", [(A, 0)]), table.write("run1", [(A, 1)], part=1)
    folder = Path(table.ledger.home, "files", "run1")
    for file in folder.iterdir():
        file.unlink()
    for file, state in ((kept, "committed"), (gone, "pending")):
        size = file.stat().st_size
        record = {"run_id": "run1", "file": file.name, "state": state, "rows": 1, "bytes": size, "errors": 0}
        (folder / f"{file.stem}.json").write_text(json.dumps({**record, "shards": {A.uri: 1}}))
    STORAGE.write_bytes(f"{table.ledger.home}/table.json", b'{"models": {}, "format": 1}')
    assert list(table.rows()) == ["a.tar#0"]
    table.ledger.open()
    assert (list(table.rows()), names(table)) == (["a.tar#0"], [kept.name])
    assert [path.name for path in folder.parent.rglob("*.json")] == []
