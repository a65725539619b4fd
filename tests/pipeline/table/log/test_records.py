"""Files and their records: what counts, what goes, and what nothing may delete."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpus.clips import Shard
from pipeline.errors import JobError
from pipeline.storage import Storage
from pipeline.table.ledger import Ledger
from pipeline.table.log.records import FileRecord, Records
from pipeline.table.log.writer import NOTHING, Written, write_file
from pipeline.table.reader import table_files
from tests.pipeline.table.log.tasks import names, rows, writer
from tests.pipeline.table.outputs import SCHEMA, STORAGE, A, B, C, Output, ids_done


def test_a_file_of_rows_and_one_of_errors_and_what_their_record_says(table: Output) -> None:
    records = writer(table).write([rows(1, 2), rows(), rows(3, failed=True), rows(4)], 7).files
    files = [table.folder / record.file for record in records]
    assert [record.file.replace(records[0].file[-16:-8], "X") for record in records] == [
        "run1-0-000007-X.parquet",
        "run1-0-000007-X-errors.parquet",
    ]
    assert records == [
        FileRecord("run1", files[0].name, 3, files[0].stat().st_size, 0, 0, {A.uri: 3}),
        FileRecord("run1", files[1].name, 1, files[1].stat().st_size, 1, 0, {A.uri: 1}),
    ]
    for file, ids in zip(files, (["a.tar#1", "a.tar#2", "a.tar#4"], ["a.tar#3"]), strict=True):
        with pq.ParquetFile(file) as held:
            assert held.schema_arrow.equals(SCHEMA, check_metadata=True)
            assert held.read()["clip_id"].to_pylist() == ids
    assert table.ledger.files() == sorted(records, key=lambda record: record.file)
    assert os.listdir(table.ledger.records.workshop) == []


def test_no_rows_no_file(table: Output) -> None:
    assert writer(table).write([rows()], 0) == NOTHING
    assert (names(table), table.ledger.records.committed()) == ([], [])


def test_a_write_task_that_runs_again_doubles_nothing(table: Output) -> None:
    written = writer(table).write([rows(1, 2)], 0)

    def not_read() -> Iterator[pa.Table]:
        raise AssertionError
        yield

    assert writer(table).write(not_read(), 0) == written
    assert list(table.rows()) == ["a.tar#1", "a.tar#2"]


def test_killed_before_its_record_a_file_goes_and_the_next_start_has_other_names(table: Output) -> None:
    table.begin("run1", A)
    kept = table.write("run1", [(A, 0)], part=9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Records, "commit", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            writer(table).write([rows(1)], 0)
    assert len(names(table)) == 2
    assert list(table.rows()) == ["a.tar#0"]
    table.ledger.open()
    assert names(table) == [kept.name]
    writer(table, "1").write([rows(1)], 0)
    assert list(table.rows()) == ["a.tar#0", "a.tar#1"]


def test_of_two_executions_of_a_task_one_counts(table: Output) -> None:
    """A node that was given up for lost may write on, and not the same rows in the same order."""
    first, second = writer(table), writer(table)

    def slow() -> Iterator[pa.Table]:
        yield rows(2, 1)
        assert len(second.write([rows(1, 2)], 0).files) == 1

    (record,) = first.write(slow(), 0).files
    assert names(table) == [record.file]
    assert pq.ParquetFile(table.folder / record.file).read()["clip_id"].to_pylist() == ["a.tar#1", "a.tar#2"]


def test_a_task_that_was_withdrawn_commits_nothing(table: Output) -> None:
    """Its job lost the lock right after it looked for the last time."""
    table.begin("run1", A)
    commit = Records.commit

    def late(records: Records, *arguments: object) -> object:
        table.ledger.open()  # the next job starts
        return commit(records, *arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Records, "commit", late)
        with pytest.raises(JobError, match="another job took over this table"):
            writer(table).write([rows(1, 2)], 0)
    assert (names(table), table.ledger.files()) == ([], [])
    table.ledger.finish("run1", {})
    assert not Path(table.ledger.home, "files", "run1").exists()


def test_a_task_that_fails_half_way_shows_nothing(table: Output) -> None:
    def broken() -> Iterator[pa.Table]:
        yield rows(*range(20_000))
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        writer(table).write(broken(), 0)
    assert names(table) == []
    writer(table).write([rows(1)], 0)
    assert list(table.rows()) == ["a.tar#1"]


def test_a_listing_that_is_empty_or_late_deletes_nothing(
    table: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.begin("run1", A)
    kept = table.write("run1", [(A, 0)])
    pending = table.write("run1", [(A, 1)], part=1, commit=False)
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "list_files", lambda *_, **__: [])
        table.ledger.open()
        table.ledger.finish("run1", {})
    assert kept.exists()
    assert pending.exists()
    # A note that is still there, or is listed again, when the file was committed.
    table.ledger.records.intend("run1", [kept.name])
    table.ledger.open()
    assert list(table.rows()) == ["a.tar#0"]
    assert (kept.exists(), pending.exists()) == (True, False)


def test_merging_what_a_listing_does_not_show_loses_no_line(
    table: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.begin("run1", A)
    table.write("run1", [(A, 0)])
    table.ledger.records.merge("run1")
    table.write("run1", [(A, 1)], part=1)
    listed = Storage.list_files
    with monkeypatch.context() as patch:
        patch.setattr(
            Storage,
            "list_files",
            lambda *args, **options: [uri for uri in listed(*args, **options) if not uri.endswith(".jsonl")],
        )
        table.ledger.records.merge("run1")
    assert list(table.rows()) == ["a.tar#0", "a.tar#1"]


def test_what_another_run_closed_survives_anything(table: Output) -> None:
    table.finished("run1", A)
    table.begin("run2", B)
    table.write("run2", [(B, 0)], commit=False)
    table.ledger.finish("run2", {})
    for run_id in ("run1", "run2", "run"):
        table.ledger.finish(run_id, {}, to_the_end=False)
    table.ledger.open()
    assert list(table.rows()) == ["a.tar#0", "a.tar#1"]


def test_a_file_without_a_record_is_neither_counted_nor_touched(table: Output) -> None:
    table.ledger.declare({})
    table.finished("run1", A)
    strange = table.folder / "run1-0-000009.parquet"
    strange.write_bytes(b"theirs")
    table.ledger.open()
    table.ledger.finish("run1", {})
    assert list(table.rows()) == ["a.tar#0", "a.tar#1"]
    table.ledger.clear()
    assert names(table) == [strange.name]


def test_killed_while_it_merges_a_file_counts_once(table: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    table.begin("run1", A)
    table.write("run1", [(A, 0)])
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "remove", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            table.ledger.finish("run1", {})
    assert [record.rows for record in table.ledger.files()] == [1]
    table.ledger.open()
    table.ledger.finish("run1", {})
    assert list(table.rows()) == ["a.tar#0"]


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("kills", range(6))
def test_killed_while_a_file_takes_the_place_of_another(
    table: Output, monkeypatch: pytest.MonkeyPatch, merged: bool, kills: int
) -> None:
    table.begin("run1", A)
    table.write("run1", [(A, 0), (A, 1)])
    if merged:
        table.ledger.finish("run1", {})
    (old,) = table.ledger.files()
    steps = iter(range(kills))

    def counted(change: Callable[..., None]) -> Callable[..., None]:
        def step(*arguments: object, **options: object) -> None:
            if next(steps, None) is None:
                raise KeyboardInterrupt
            change(*arguments, **options)

        return step

    with monkeypatch.context() as patch:
        for name in ("write_bytes", "remove"):
            patch.setattr(Storage, name, counted(getattr(Storage, name)))
        with suppress(KeyboardInterrupt):
            table.ledger.records.replace(
                old, lambda name: write_file(table.ledger.records, name, [rows(0)], SCHEMA, "run1")
            )
    now = list(table.rows())
    assert now in (["a.tar#0"], ["a.tar#0", "a.tar#1"])
    assert (now == ["a.tar#0"]) == (kills > 1)
    table.ledger.open()
    assert list(table.rows()) == now
    assert len(names(table)) == 1


def test_a_run_that_lost_the_lock_commits_nothing(table: Output) -> None:
    write = writer(table)
    table.release()
    with pytest.raises(JobError, match="stops before it writes"):
        write.write([rows(1)], 0)
    assert (names(table), table.ledger.records.committed()) == ([], [])


def test_a_task_that_outlives_its_run_hurts_nothing(table: Output) -> None:
    table.begin("run1", A)
    late = writer(table)
    written = late.write([rows(1, 2)], 0)
    table.ledger.finish("run1", {})
    table.release()
    assert late.write([rows(1, 2)], 0) == written
    # One that looked before the file was there.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Records, "of_task", lambda *_: None)
        with pytest.raises(JobError, match="stops before it writes"):
            late.write([rows(1, 2)], 0)
    assert table.ledger.records.committed() == written.files
    assert list(table.rows()) == ["a.tar#1", "a.tar#2"]


@pytest.mark.parametrize("merged", [True, False])
def test_a_task_that_loses_the_lock_while_it_writes_takes_back_only_what_is_not_committed(
    table: Output, merged: bool
) -> None:
    first = writer(table)
    written = first.write([rows(1, 2)], 0)
    if merged:
        table.ledger.records.merge("run1")
    looks = iter([None])

    def check() -> None:
        if next(looks, "lost") == "lost":
            raise JobError("lost")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Records, "of_task", lambda *_: None)
        with pytest.raises(JobError, match="lost"):
            replace(first, check=check).write([rows(1, 2)], 0)
    assert table.ledger.records.committed() == written.files
    assert names(table) == [written.files[0].file]


@pytest.mark.parametrize("moment", ["listed", "read"])
def test_a_reader_without_the_lock_sees_all_that_is_merged_meanwhile(
    table: Output, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    table.ledger.declare({})
    table.begin("run1", A)
    table.write("run1", [(A, 0)])
    table.write("run1", [(A, 1)], part=1)
    before = STORAGE.list_files(f"{table.ledger.home}/files", recursive=True)
    listed, once = Storage.list_files, iter([True])

    def list_files(storage: Storage, uri: str, **options: bool) -> list[str]:
        if not uri.endswith("out.runs/files") or not next(once, False):
            return listed(storage, uri, **options)
        table.ledger.records.merge("run1")
        # A walk that came to the folder of the run before it was merged, or after, and to the lines before.
        return before if moment == "listed" else []

    monkeypatch.setattr(Storage, "list_files", list_files)
    assert len(table_files(str(table.folder), STORAGE)) == 2


def test_a_name_with_a_line_separator_is_one_line(table: Output) -> None:
    table.finished("run1", replace(A, uri="/corpus/a\u2028\x85.tar"))
    assert [list(record.shards) for record in table.ledger.files()] == [["/corpus/a\u2028\x85.tar"]]


def test_nothing_changes_a_table_without_its_lock(table: Output) -> None:
    table.finished("run1", A)
    table.release()
    ledger = Ledger(str(table.folder), STORAGE)
    for change in (ledger.open, ledger.clear, lambda: ledger.finish("run1", {}), lambda: ledger.declare({})):
        with pytest.raises(RuntimeError, match="without its lock"):
            change()
    assert list(table.rows()) == ["a.tar#0", "a.tar#1"]


def test_two_jobs_on_one_output(table: Output) -> None:
    table.begin("run1", A)
    file = table.write("run1", [(A, 0)], commit=False)
    with pytest.raises(JobError, match="is being written by"), Ledger(str(table.folder), STORAGE).locked():
        pass
    assert file.exists()
    table.release()
    with Ledger(str(table.folder), STORAGE).locked():
        pass


def test_rows_that_nobody_recorded_are_no_success(table: Output) -> None:
    table.begin("run1", A)
    with pytest.raises(JobError, match=r"1 files that this run wrote are not there .*x\.parquet"):
        table.ledger.finish("run1", {}, written=Written([FileRecord("run1", "x.parquet", 1)], {}))
    assert table.ledger.closed_runs().isdisjoint({"run1"})


def test_killed_while_it_overwrites_the_next_start_goes_on(
    table: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.ledger.declare({})
    table.finished("run1", A)
    table.finished("run2", B)
    removed = Storage.remove
    with monkeypatch.context() as patch:
        once = iter([removed])
        patch.setattr(Storage, "remove", lambda *args, **kwargs: next(once)(*args, **kwargs))
        with pytest.raises(StopIteration):
            table.ledger.clear()
    assert len(names(table)) == 1
    table.ledger.open()
    assert (names(table), table.ledger.identity(), table.ledger.files()) == ([], None, [])
    assert table.plan(A, B).shards == [A, B]


def undelivered(shard: Shard, key: str = "") -> pa.Table:
    error = {"stage": "read", "code": "undelivered", "message": "access is forbidden"}
    row = {"clip_id": f"{shard.name}#{key}", "shard": shard.uri, "error": error, "language": ""}
    return pa.Table.from_pylist([row], schema=SCHEMA.remove_metadata())


def test_a_shard_that_storage_did_not_deliver_has_no_row_and_is_not_done(table: Output) -> None:
    table.begin("run1", A, B, C)
    forbidden = {A.uri: "access is forbidden"}
    written = writer(table).write([rows(1), undelivered(A, "2"), undelivered(A)], 0)
    assert (len(written.files), written.undelivered) == (1, forbidden)
    assert writer(table).write([], 0) == written  # the same task again
    assert writer(table).write([undelivered(B)], 1) == Written([], {B.uri: "access is forbidden"})
    table.write("run1", [(C, 0)], part=2)
    assert list(table.rows()) == ["a.tar#1", "c.tar#0"]
    table.ledger.finish("run1", {}, written=Written(written.files, dict.fromkeys((A.uri, B.uri), "")))
    work = table.plan(A, B, C)
    assert (work.shards, ids_done(work)) == ([A, B], {A.uri: ["a.tar#1"]})


def test_killed_a_run_does_not_take_an_undelivered_shard_for_done(table: Output) -> None:
    table.begin("run1", A)
    writer(table).write([rows(1), undelivered(A)], 0)
    table.count("run1", A, 2)  # as the read task counts them
    assert table.plan(A).shards == [A]
