"""The output as its own ledger: what is done, what is left, whose a file is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import JobError
from tests.pipeline.table.outputs import STORAGE, A, B, C, Output, ids_done, shard

IDENTITY = {"models": {"transcribe": "sha256:aa"}, "dtype": "float32", "channel": "mean"}
TASKS = ["transcribe"]


def test_nothing_yet(table: Output) -> None:
    work = table.plan(A, B)
    assert (work.run_id, work.continued, work.shards, work.skipped) == ("run9", False, [A, B], 0)
    assert ids_done(work) == {}
    assert table.ledger.known_names() == {}


def test_shards_of_a_complete_run_are_skipped(table: Output) -> None:
    table.finished("run1", A, B)
    work = table.plan(A, B, C)
    assert (work.run_id, work.continued, work.shards, work.skipped) == ("run9", False, [C], 2)
    assert ids_done(work) == {}
    assert table.ledger.known_names() == {A.uri: "a.tar", B.uri: "b.tar"}


def test_finish_keeps_the_rows_and_drops_what_only_a_restart_needs(table: Output) -> None:
    table.begin("run1", A)
    kept = table.write("run1", [(A, 0)])
    pending = table.write("run1", [(A, 1)], part=1, commit=False)
    table.count("run1", A, 1)
    table.ledger.finish("run1", {"clips": 1})
    assert kept.exists()
    assert not pending.exists()
    assert sorted(entry.name for entry in (Path(table.ledger.home)).rglob("*") if entry.is_file()) == [
        "lock.json",
        "run1.json",
        "run1.jsonl",  # of its files
        "run1.jsonl",  # of its shards
    ]
    assert json.loads((Path(table.ledger.home) / "run1.json").read_text()) == {"clips": 1}


def test_a_changed_shard_is_read_again_but_for_the_clips_done(table: Output) -> None:
    table.finished("run1", A, B)
    work = table.plan(replace(A, version="2"), B)
    assert [(left.name, left.version) for left in work.shards] == [("a.tar", "2")]
    assert ids_done(work) == {A.uri: ["a.tar#0", "a.tar#1"]}
    # The latest complete reading counts.
    table.finished("run2", replace(A, version="2"), clips=0)
    assert table.plan(replace(A, version="2"), B).shards == []
    assert table.plan(A, B).shards == [A]


def test_a_killed_run_goes_on_under_its_id(table: Output) -> None:
    table.begin("run1", A, B, C)
    table.write("run1", [(A, 0), (A, 1), (B, 0)])
    table.count("run1", A, 2)
    table.count("run1", B, 2)
    work = table.plan(A, B, C)
    assert (work.run_id, work.continued, work.skipped) == ("run1", True, 1)
    assert work.shards == [B, C]
    assert ids_done(work) == {B.uri: ["b.tar#0"]}
    assert work.clips_done == 1
    table.ledger.begin(work)
    table.write("run1", [(B, 1), (C, 0)], part=1)
    table.ledger.finish("run1", {})
    assert table.plan(A, B, C).shards == []


def test_rows_without_a_count_do_not_make_a_shard_complete(table: Output) -> None:
    table.begin("run1", A)
    table.write("run1", [(A, 0), (A, 1)])
    assert table.plan(A).shards == [A]


def test_a_loose_file_needs_no_count(table: Output) -> None:
    one, other = shard("x.wav", "audio"), shard("y.wav", "audio")
    table.begin("run1", one, other)
    table.write("run1", [(one, 0)])
    assert table.plan(one, other).shards == [other]


def test_a_count_counts_when_every_part_has_written_its_own(table: Output) -> None:
    table.begin("run1", A)
    table.write("run1", [(A, 0), (A, 1), (A, 2)])
    table.count("run1", A, 2, part=0, of_parts=2)
    assert table.plan(A).shards == [A]
    table.count("run1", A, 1, part=1, of_parts=2)
    assert table.plan(A).shards == []


def test_a_part_read_twice_counts_once(table: Output) -> None:
    table.begin("run1", A)
    table.write("run1", [(A, 0), (A, 1)])
    table.count("run1", A, 2)
    table.count("run1", A, 2)
    assert table.plan(A).shards == []


def test_a_shard_without_a_clip_is_complete_by_its_count(table: Output) -> None:
    table.begin("run1", A, B)
    table.count("run1", A, 0)
    assert table.plan(A, B).shards == [B]


def test_an_unrelated_unfinished_run_stays_as_it_is(table: Output) -> None:
    table.begin("run1", A, B)
    table.write("run1", [(A, 0)])
    work = table.plan(C)
    assert (work.run_id, work.continued, work.shards) == ("run9", False, [C])
    table.finished("run9", C)
    later = table.plan(A, B, C)
    assert (later.run_id, later.continued, later.shards) == ("run1", True, [A, B])
    assert ids_done(later) == {A.uri: ["a.tar#0"]}


def test_a_run_is_not_continued_by_one_that_reads_only_part_of_it(table: Output) -> None:
    table.begin("run1", A, B)
    table.write("run1", [(A, 0)])
    work = table.plan(A)
    assert (work.run_id, work.continued, work.shards) == ("run9", False, [A])
    assert ids_done(work) == {A.uri: ["a.tar#0"]}


def test_a_larger_run_continues_a_smaller_and_adds_its_shards(table: Output) -> None:
    table.begin("run1", A)
    work = table.plan(A, B)
    assert (work.run_id, work.continued) == ("run1", True)
    table.ledger.begin(work)
    table.ledger.finish("run1", {})
    assert table.plan(A, B).skipped == 2


def test_uncommitted_files_of_a_killed_run_are_removed(table: Output) -> None:
    table.finished("run0", C)
    table.begin("run1", A)
    kept = table.write("run1", [(A, 0)])
    pending = table.write("run1", [(A, 1)], part=1, commit=False)
    work = table.plan(A)
    assert (kept.exists(), pending.exists()) == (True, False)
    assert ids_done(work) == {A.uri: ["a.tar#0"]}
    # Another run's files stay.
    assert len(table.ledger.data_files_of("run0")) == 1


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("models", {"transcribe": "sha256:bb"}, "model of transcribe: it was 'sha256:aa', now 'sha256:bb'"),
        ("dtype", "bfloat16", "dtype: it was 'float32', now 'bfloat16'"),
        ("channel", "left", "channel: it was 'mean', now 'left'"),
    ],
)
def test_require_names_what_differs_and_only_that(table: Output, field: str, value: Any, said: str) -> None:
    table.ledger.declare({**IDENTITY, "carried": "schema"})
    table.ledger.require(IDENTITY, TASKS)
    with pytest.raises(JobError) as caught:
        table.ledger.require({**IDENTITY, field: value}, TASKS)
    message = str(caught.value)
    assert said in message.splitlines()
    assert message.count("it was") == 1


def test_an_overwrite_cut_off_whose_list_is_damaged_is_told(table: Output) -> None:
    STORAGE.write_bytes(f"{table.ledger.home}/overwrite.json", b"{")
    with pytest.raises(JobError, match=r"overwrite\.json, which says .* is damaged; delete"):
        table.ledger.open()


def test_require_refuses_other_annotations_before_any_digest_is_known(table: Output) -> None:
    table.ledger.declare({**IDENTITY, "models": {"transcribe": "sha256:aa", "embed": "sha256:cc"}})
    table.ledger.require({"dtype": "float32"}, ["transcribe", "embed"])
    with pytest.raises(JobError, match="holds embed, transcribe; this job would write embed, "):
        table.ledger.require({"dtype": "float32"}, ["embed"])


def test_require_refuses_a_table_of_another_origin(table: Output) -> None:
    table.ledger.require(IDENTITY, TASKS)
    pq.write_table(pa.table({"x": [1]}), table.folder / "theirs.parquet")
    with pytest.raises(JobError, match=r"another origin .*theirs\.parquet"):
        table.ledger.require(IDENTITY, TASKS)


def test_clear_deletes_a_table_and_its_run_folder(table: Output) -> None:
    table.ledger.declare(IDENTITY)
    table.finished("run1", A)
    table.ledger.clear()
    assert [entry for entry in table.folder.rglob("*") if entry.is_file()] == []
    left = [entry.name for entry in Path(table.ledger.home).rglob("*") if entry.is_file()]
    assert left == ["lock.json"]
    assert table.plan(A).shards == [A]
    table.ledger.require({**IDENTITY, "dtype": "float16"}, TASKS)


def test_clear_refuses_a_folder_with_foreign_files(table: Output) -> None:
    files = [table.folder / "thesis.docx", table.folder / "part.parquet"]
    for file in files:
        file.write_bytes(b"precious")
    with pytest.raises(JobError, match=r"holds files that no job wrote .*thesis\.docx"):
        table.ledger.clear()
    assert all(file.read_bytes() == b"precious" for file in files)


def test_clear_of_a_table_leaves_foreign_files_beside_it(table: Output) -> None:
    table.ledger.declare(IDENTITY)
    table.finished("run1", A)
    (table.folder / "notes.txt").write_text("precious")
    (table.folder / "corpus").mkdir()
    (table.folder / "corpus" / "part.parquet").write_text("precious")
    table.ledger.clear()
    table.release()
    left = sorted(entry.name for entry in table.folder.rglob("*") if entry.is_file())
    assert left == ["notes.txt", "part.parquet"]


def test_a_count_of_an_older_version_does_not_count(table: Output) -> None:
    # run1 read all of A, then was killed; A changed; the run went on, and was killed before it read A again.
    table.begin("run1", A, B)
    table.write("run1", [(A, 0), (A, 1)])
    table.count("run1", A, 2)
    changed = replace(A, version="2")
    table.ledger.begin(table.plan(changed, B))
    assert table.plan(changed, B).shards == [changed, B]


def test_rows_of_clips_that_are_gone_do_not_make_a_changed_shard_complete(table: Output) -> None:
    # A had clips 0 to 4; its next version holds 5 to 7, all counted, none written when the run is killed.
    table.finished("run1", A, clips=5)
    changed = replace(A, version="2")
    table.begin("run2", changed, B)
    table.count("run2", changed, 3)
    assert table.plan(changed, B).shards == [changed, B]
