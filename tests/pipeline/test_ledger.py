"""The output as its own ledger: what is done, what is left, whose a file is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import JobError
from pipeline.ledger import Ledger, Work, write_census
from pipeline.shards import Format, Shard
from pipeline.storage import Storage, StorageOptions

STORAGE = Storage(StorageOptions())
IDENTITY = {"model_digest": "sha256:aa", "dtype": "float32", "channel": "mean"}


def shard(name: str, kind: Format = Format.TAR, version: str = "1") -> Shard:
    return Shard(f"/corpus/{name}", name, kind, 1000, version)


A, B, C = shard("a.tar"), shard("b.tar"), shard("c.tar")


class Table:
    """An output as runs leave it behind, written by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger(str(folder), STORAGE)

    def begin(self, run_id: str, *shards: Shard) -> None:
        self.ledger.begin(Work(run_id, False, list(shards), {}, 0))

    def write(
        self, run_id: str, rows: Iterable[tuple[Shard, int]], *, part: int = 0, commit: bool = True
    ) -> Path:
        """Clips `<shard>#<number>` in one file, as Ray's two-phase commit names it."""
        self.folder.mkdir(exist_ok=True)
        of = list(rows)
        file = self.folder / f"{run_id}_0_{part:06}-0.parquet"
        columns = {
            "clip_id": [f"{shard.name}#{number}" for shard, number in of],
            "shard": [shard.uri for shard, _ in of],
        }
        pq.write_table(pa.table(columns), file)
        checkpoint = self.folder / "_run" / "commit" / run_id
        checkpoint.mkdir(parents=True, exist_ok=True)
        ending = "parquet" if commit else "pending.parquet"
        (checkpoint / f"{run_id}_0_{part:06}.{ending}").write_bytes(b"")
        return file

    def census(
        self, run_id: str, shard: Shard, clips: int, part: int = 0, of_parts: int = 1, done: int = 0
    ) -> None:
        write_census(STORAGE, self.ledger.census_uri(run_id), shard, part, of_parts, clips, 0, done)

    def plan(self, *shards: Shard) -> Work:
        return self.ledger.plan(list(shards), "run9")

    def ids_done(self, work: Work) -> dict[str, list[str]]:
        return {uri: sorted(ids.to_pylist()) for uri, ids in work.done.items()}


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path / "out")


def finished(table: Table, run_id: str, *shards: Shard, clips: int = 2) -> None:
    table.begin(run_id, *shards)
    table.write(run_id, [(shard, number) for shard in shards for number in range(clips)])
    table.ledger.finish(run_id, {"run_id": run_id})


def test_nothing_yet(table: Table) -> None:
    work = table.plan(A, B)
    assert (work.run_id, work.continued, work.shards, work.skipped) == ("run9", False, [A, B], 0)
    assert table.ids_done(work) == {}
    assert table.ledger.known_names() == {}


def test_shards_of_a_complete_run_are_skipped(table: Table) -> None:
    finished(table, "run1", A, B)
    work = table.plan(A, B, C)
    assert (work.run_id, work.continued, work.shards, work.skipped) == ("run9", False, [C], 2)
    assert table.ids_done(work) == {}
    assert table.ledger.known_names() == {A.uri: "a.tar", B.uri: "b.tar"}


def test_finish_keeps_the_rows_and_drops_what_only_a_restart_needs(table: Table) -> None:
    table.begin("run1", A)
    kept = table.write("run1", [(A, 0)])
    pending = table.write("run1", [(A, 1)], part=1, commit=False)
    table.census("run1", A, 1)
    table.ledger.finish("run1", {"clips": 1})
    assert kept.exists()
    assert not pending.exists()
    assert sorted(entry.name for entry in (table.folder / "_run").rglob("*") if entry.is_file()) == [
        "run1.json",
        "run1.jsonl",
    ]
    assert json.loads((table.folder / "_run" / "run1.json").read_text()) == {"clips": 1}


def test_a_changed_shard_is_read_again_but_for_the_clips_done(table: Table) -> None:
    finished(table, "run1", A, B)
    work = table.plan(replace(A, version="2"), B)
    assert [(left.name, left.version) for left in work.shards] == [("a.tar", "2")]
    assert table.ids_done(work) == {A.uri: ["a.tar#0", "a.tar#1"]}
    # The latest complete reading counts.
    finished(table, "run2", replace(A, version="2"), clips=0)
    assert table.plan(replace(A, version="2"), B).shards == []
    assert table.plan(A, B).shards == [A]


def test_a_killed_run_goes_on_under_its_id(table: Table) -> None:
    table.begin("run1", A, B, C)
    table.write("run1", [(A, 0), (A, 1), (B, 0)])
    table.census("run1", A, 2)
    table.census("run1", B, 2)
    work = table.plan(A, B, C)
    assert (work.run_id, work.continued, work.skipped) == ("run1", True, 1)
    assert work.shards == [B, C]
    assert table.ids_done(work) == {B.uri: ["b.tar#0"]}
    assert work.clips_done == 1
    table.ledger.begin(work)
    table.write("run1", [(B, 1), (C, 0)], part=1)
    table.ledger.finish("run1", {})
    assert table.plan(A, B, C).shards == []


def test_rows_without_a_census_do_not_make_a_shard_complete(table: Table) -> None:
    table.begin("run1", A)
    table.write("run1", [(A, 0), (A, 1)])
    assert table.plan(A).shards == [A]


def test_a_loose_file_needs_no_census(table: Table) -> None:
    one, other = shard("x.wav", Format.AUDIO), shard("y.wav", Format.AUDIO)
    table.begin("run1", one, other)
    table.write("run1", [(one, 0)])
    assert table.plan(one, other).shards == [other]


def test_a_census_counts_when_every_part_has_written_its_own(table: Table) -> None:
    table.begin("run1", A)
    table.write("run1", [(A, 0), (A, 1), (A, 2)])
    table.census("run1", A, 2, part=0, of_parts=2)
    assert table.plan(A).shards == [A]
    table.census("run1", A, 1, part=1, of_parts=2)
    assert table.plan(A).shards == []


def test_a_part_read_twice_counts_once(table: Table) -> None:
    table.begin("run1", A)
    table.write("run1", [(A, 0), (A, 1)])
    table.census("run1", A, 2)
    table.census("run1", A, 2)
    assert table.plan(A).shards == []


def test_a_shard_without_a_clip_is_complete_by_its_census(table: Table) -> None:
    table.begin("run1", A, B)
    table.census("run1", A, 0)
    assert table.plan(A, B).shards == [B]


def test_an_unrelated_unfinished_run_stays_as_it_is(table: Table) -> None:
    table.begin("run1", A, B)
    table.write("run1", [(A, 0)])
    work = table.plan(C)
    assert (work.run_id, work.continued, work.shards) == ("run9", False, [C])
    finished(table, "run9", C)
    later = table.plan(A, B, C)
    assert (later.run_id, later.continued, later.shards) == ("run1", True, [A, B])
    assert table.ids_done(later) == {A.uri: ["a.tar#0"]}


def test_a_run_is_not_continued_by_one_that_reads_only_part_of_it(table: Table) -> None:
    table.begin("run1", A, B)
    table.write("run1", [(A, 0)])
    work = table.plan(A)
    assert (work.run_id, work.continued, work.shards) == ("run9", False, [A])
    assert table.ids_done(work) == {A.uri: ["a.tar#0"]}


def test_a_larger_run_continues_a_smaller_and_adds_its_shards(table: Table) -> None:
    table.begin("run1", A)
    work = table.plan(A, B)
    assert (work.run_id, work.continued) == ("run1", True)
    table.ledger.begin(work)
    table.ledger.finish("run1", {})
    assert table.plan(A, B).skipped == 2


def test_uncommitted_files_of_a_killed_run_are_removed(table: Table) -> None:
    finished(table, "run0", C)
    table.begin("run1", A)
    kept = table.write("run1", [(A, 0)])
    pending = table.write("run1", [(A, 1)], part=1, commit=False)
    work = table.plan(A)
    assert (kept.exists(), pending.exists()) == (True, False)
    assert table.ids_done(work) == {A.uri: ["a.tar#0"]}
    # A complete run's commit marks are gone; its files stay.
    assert len(table.ledger.data_files_of("run0")) == 1


@pytest.mark.parametrize(
    ("field", "value"), [("model_digest", "sha256:bb"), ("dtype", "bfloat16"), ("channel", "left")]
)
def test_require_names_what_differs_and_only_that(table: Table, field: str, value: str) -> None:
    table.ledger.declare({**IDENTITY, "carried": "schema"})
    table.ledger.require(IDENTITY)
    with pytest.raises(JobError) as caught:
        table.ledger.require({**IDENTITY, field: value})
    message = str(caught.value)
    assert f"{field}: it was {IDENTITY[field]!r}, now {value!r}" in message
    assert not any(f"{other}: it was" in message for other in IDENTITY if other != field)


def test_require_refuses_a_table_of_another_origin(table: Table) -> None:
    table.ledger.require(IDENTITY)
    table.folder.mkdir()
    pq.write_table(pa.table({"x": [1]}), table.folder / "theirs.parquet")
    with pytest.raises(JobError, match=r"another origin .*theirs\.parquet"):
        table.ledger.require(IDENTITY)


def test_clear_deletes_a_table_and_its_run_folder(table: Table) -> None:
    table.ledger.declare(IDENTITY)
    finished(table, "run1", A)
    table.ledger.clear()
    assert [entry for entry in table.folder.rglob("*") if entry.is_file()] == []
    assert table.plan(A).shards == [A]
    table.ledger.require({**IDENTITY, "dtype": "float16"})


def test_clear_refuses_a_folder_with_foreign_files(table: Table) -> None:
    table.folder.mkdir()
    files = [table.folder / "thesis.docx", table.folder / "part.parquet"]
    for file in files:
        file.write_bytes(b"precious")
    with pytest.raises(JobError, match=r"holds files that no run of this wrote .*thesis\.docx"):
        table.ledger.clear()
    assert all(file.read_bytes() == b"precious" for file in files)


def test_clear_of_a_table_leaves_foreign_files_beside_it(table: Table) -> None:
    table.ledger.declare(IDENTITY)
    finished(table, "run1", A)
    (table.folder / "notes.txt").write_text("precious")
    (table.folder / "corpus").mkdir()
    (table.folder / "corpus" / "part.parquet").write_text("precious")
    table.ledger.clear()
    left = sorted(entry.name for entry in table.folder.rglob("*") if entry.is_file())
    assert left == ["notes.txt", "part.parquet"]


def test_a_census_of_an_older_version_does_not_count(table: Table) -> None:
    # run1 read all of A, then was killed; A changed; the run went on, and was killed before it read A again.
    table.begin("run1", A, B)
    table.write("run1", [(A, 0), (A, 1)])
    table.census("run1", A, 2)
    changed = replace(A, version="2")
    table.ledger.begin(table.plan(changed, B))
    assert table.plan(changed, B).shards == [changed, B]


def test_rows_of_clips_that_are_gone_do_not_make_a_changed_shard_complete(table: Table) -> None:
    # A had clips 0 to 4; its next version holds 5 to 7, all counted, none written when the run is killed.
    finished(table, "run1", A, clips=5)
    changed = replace(A, version="2")
    table.begin("run2", changed, B)
    table.census("run2", changed, 3, done=5)
    assert table.plan(changed, B).shards == [changed, B]
