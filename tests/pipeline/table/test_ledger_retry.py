"""--retry-errors, and shards that changed: error rows go, and their clips are annotated once more."""

from __future__ import annotations

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from pipeline.corpus.clips import Shard
from pipeline.table.retry import drop_rows
from tests.pipeline.table.outputs import SCHEMA, UNDECODABLE, UNREADABLE, A, B, Output, left, shard

EN, DE = "language = 'en'", "language = 'de'"
LANGUAGES = {0: "en", 1: "de", 2: "en"}
WHOLE = replace(A, version="2")


@pytest.fixture
def held(table: Output) -> Output:
    """A has three clips, of which 1 and 2 failed, and B one that did not; both complete."""
    table.begin("run1", A, B)
    table.write(
        "run1",
        [(A, 0), (A, 1), (A, 2)],
        errors={1: UNDECODABLE, 2: UNDECODABLE},
        languages=LANGUAGES,
    )
    table.write("run1", [(B, 0)], part=1)
    table.ledger.finish("run1", {})
    return table


def test_only_clips_that_failed_are_read_again(held: Output) -> None:
    assert left(held.plan(A, B)) == []
    work = held.start(held.plan(A, B, retry=True))
    assert left(work) == [("a.tar", ["a.tar#0"])]
    assert (work.run_id, work.clips_failed) == ("run9", 2)
    assert held.rows() == {"a.tar#0": None, "b.tar#0": None}
    held.write("run9", [(A, 1), (A, 2)], errors={2: UNDECODABLE})
    held.ledger.finish("run9", {})
    assert held.rows() == {"a.tar#0": None, "a.tar#1": None, "a.tar#2": "undecodable", "b.tar#0": None}
    assert left(held.plan(A, B)) == []


def test_nothing_failed_nothing_to_do(table: Output) -> None:
    table.finished("run1", A)
    assert left(table.plan(A, retry=True)) == []


def test_a_rewritten_file_keeps_all_but_the_rows(held: Output) -> None:
    file = held.folder / "run1-0-000000-x.parquet"
    other = held.folder / "run1-0-000001-x.parquet"
    before, untouched = pq.ParquetFile(file).read(), other.stat().st_ino
    held.start(held.plan(A, B, retry=True))
    assert not file.exists()
    (rewritten,) = [path for path in held.folder.iterdir() if path != other]
    with pq.ParquetFile(rewritten) as after:
        assert after.schema_arrow.equals(SCHEMA, check_metadata=True)
        assert after.read().equals(before.slice(0, 1))
        assert after.metadata.row_group(0).column(0).compression == "ZSTD"
    assert other.stat().st_ino == untouched


def test_a_file_of_errors_alone_is_deleted(table: Output) -> None:
    table.begin("run1", A)
    file = table.write("run1", [(A, 0), (A, 1)], errors={0: UNDECODABLE, 1: UNDECODABLE})
    table.ledger.finish("run1", {})
    table.start(table.plan(A, retry=True))
    assert not file.exists()


def test_the_row_of_a_broken_shard_goes_too(table: Output) -> None:
    table.begin("run1", A)
    table.write("run1", [(A, 0), (A, "")], errors={"": UNREADABLE})
    table.ledger.finish("run1", {})
    work = table.start(table.plan(A, retry=True))
    assert left(work) == [("a.tar", ["a.tar#0"])]
    assert table.rows() == {"a.tar#0": None}


def test_shards_out_of_question_keep_their_error_rows(held: Output) -> None:
    work = held.start(held.plan(B, retry=True))
    assert left(work) == []
    assert list(held.rows()) == ["a.tar#0", "a.tar#1", "a.tar#2", "b.tar#0"]


def test_a_condition_narrows_the_error_rows(held: Output) -> None:
    work = held.start(held.plan(A, B, where=EN, retry=True))
    assert left(work) == [("a.tar", ["a.tar#0", "a.tar#1"])]
    assert held.rows() == {"a.tar#0": None, "a.tar#1": "undecodable", "b.tar#0": None}


def test_a_row_without_columns_is_tried_again_only_if_reading_failed(table: Output) -> None:
    table.begin("run1", A)
    table.write("run1", [(A, 0), (A, 1)], errors={0: UNREADABLE, 1: UNDECODABLE})
    table.ledger.finish("run1", {})
    table.start(table.plan(A, where=EN, retry=True))
    assert list(table.rows()) == ["a.tar#1"]


def test_retried_under_a_condition_a_shard_is_complete_for_that_one_only(held: Output) -> None:
    # A clip that could not be read may turn out to be German: the run without condition must see it.
    held.start(held.plan(A, B, where=EN, retry=True))
    held.ledger.finish("run9", {})
    assert left(held.plan(A, B, where=EN)) == []
    assert left(held.plan(A, B)) == [("a.tar", ["a.tar#0", "a.tar#1"])]


@pytest.mark.parametrize("again", [False, True])
def test_killed_before_the_rows_are_gone(held: Output, again: bool) -> None:
    held.ledger.begin(held.plan(A, B, retry=True))
    work = held.start(held.plan(A, B, run_id="runA", retry=again))
    assert work.run_id == "runA"
    done = ["a.tar#0"] if again else ["a.tar#0", "a.tar#1", "a.tar#2"]
    assert left(work) == [("a.tar", done)]
    held.write("runA", [(A, 1), (A, 2)] if again else [])
    held.ledger.finish("runA", {})
    assert list(held.rows()) == ["a.tar#0", "a.tar#1", "a.tar#2", "b.tar#0"]
    work = held.plan(A, B)
    assert (left(work), work.interrupted) == ([], ["run9"])


@pytest.mark.parametrize("again", [False, True])
def test_killed_between_two_files(table: Output, again: bool) -> None:
    table.begin("run1", A)
    table.write("run1", [(A, 0), (A, 1)], errors={1: UNDECODABLE})
    table.write("run1", [(A, 2)], errors={2: UNDECODABLE}, part=1)
    table.ledger.finish("run1", {})
    work = table.plan(A, retry=True)
    table.ledger.begin(work)
    drop_rows(table.ledger, {A.uri: work.failed[A.uri].slice(0, 1)})
    assert list(table.rows()) == ["a.tar#0", "a.tar#2"]
    work = table.start(table.plan(A, run_id="runA", retry=again))
    assert left(work) == [("a.tar", ["a.tar#0"] if again else ["a.tar#0", "a.tar#2"])]


@pytest.mark.parametrize("again", [False, True])
def test_killed_after_some_rows(held: Output, again: bool) -> None:
    held.start(held.plan(A, B, retry=True))
    held.write("run9", [(A, 1)], errors={1: UNDECODABLE})
    work = held.start(held.plan(A, B, run_id="runA", retry=again))
    assert (work.run_id, left(work)) == (
        "runA",
        [("a.tar", ["a.tar#0"] if again else ["a.tar#0", "a.tar#1"])],
    )


def test_killed_before_its_summary(held: Output) -> None:
    held.start(held.plan(A, B, retry=True))
    held.write("run9", [(A, 1), (A, 2)])
    held.count("run9", A, 3, matched=1)
    work = held.plan(A, B)
    assert (left(work), work.interrupted) == ([], ["run9"])


def test_a_run_killed_before_the_retry_is_not_continued(table: Output) -> None:
    # Under its old id, what it does now would count as done before the errors were taken out.
    table.begin("run1", A, B)
    table.write("run1", [(A, 0)], errors={0: UNDECODABLE})
    table.count("run1", A, 1)
    work = table.start(table.plan(A, run_id="run2", retry=True))
    assert (work.run_id, left(work)) == ("run2", [("a.tar", [])])
    work = table.plan(A, B, run_id="run3")
    assert (work.run_id, left(work)) == ("run3", [("a.tar", []), ("b.tar", [])])


def test_errors_are_annotated_again_in_a_run_of_its_own(table: Output) -> None:
    # The killed run counts its own rows, and some of them are about to go.
    table.begin("run1", A, B)
    table.write("run1", [(A, 0)], errors={0: UNDECODABLE})
    assert table.plan(A, B).run_id == "run1"
    assert table.plan(A, B, retry=True).run_id == "run9"


def test_error_rows_of_a_changed_shard_and_of_a_loose_file(table: Output) -> None:
    loose = shard("x.wav", "audio")
    table.begin("run1", A, loose)
    table.write("run1", [(A, 0), (A, 1), (loose, "x")], errors={1: UNDECODABLE, "x": UNDECODABLE})
    table.ledger.finish("run1", {})
    work = table.start(table.plan(WHOLE, loose, retry=True))
    assert left(work) == [("a.tar", ["a.tar#0"]), ("x.wav", [])]
    assert list(table.rows()) == ["a.tar#0"]


def half_copied(table: Output, loose: Shard) -> None:
    table.begin("run1", A, B, loose)
    errors = dict.fromkeys((1, "", "x"), UNDECODABLE)
    table.write("run1", [(A, 0), (A, 1), (A, ""), (B, 1), (loose, "x")], errors=errors)
    table.ledger.finish("run1", {})


def test_errors_of_a_shard_that_changed_are_tried_again(table: Output) -> None:
    """Half copied when it was read, it is whole now."""
    loose = shard("x.wav", "audio")
    half_copied(table, loose)
    assert left(table.plan(A, B, loose)) == []
    copied = replace(loose, version="2")
    work = table.start(table.plan(WHOLE, B, copied))
    assert left(work) == [("a.tar", ["a.tar#0"]), ("x.wav", [])]
    assert table.rows() == {"a.tar#0": None, "b.tar#1": "undecodable"}
    table.write("run9", [(WHOLE, 1), (WHOLE, 2), (copied, "x")], errors={2: UNDECODABLE})
    table.ledger.finish("run9", {})
    assert left(table.plan(WHOLE, B, copied)) == []
    assert table.rows()["a.tar#2"] == "undecodable"


def test_killed_before_errors_of_a_shard_that_changed_are_gone(table: Output) -> None:
    half_copied(table, shard("x.wav", "audio"))
    table.ledger.begin(table.plan(WHOLE))
    work = table.start(table.plan(WHOLE, run_id="runA"))
    assert (work.run_id, left(work)) == ("runA", [("a.tar", ["a.tar#0"])])


def test_up_to_a_limit_errors_of_a_shard_that_changed_wait(table: Output) -> None:
    half_copied(table, shard("x.wav", "audio"))
    table.begin("run2", WHOLE)
    table.ledger.finish("run2", {}, to_the_end=False)
    assert left(table.plan(WHOLE)) == [("a.tar", ["a.tar#0"])]
    assert left(table.plan(WHOLE, where=EN)) == [("a.tar", ["a.tar#", "a.tar#0", "a.tar#1"])]
