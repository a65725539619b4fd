"""Runs that end before their shards do: under a condition (--where), or after so many clips (--limit)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.pipeline.table.outputs import A, B, C, Output, ids_done, left, shard

EN, DE = "language = 'en'", "language = 'de'"


def test_complete_under_a_condition_is_complete_for_the_same_only(table: Output) -> None:
    table.finished("run1", A, B, where=EN)
    assert left(table.plan(A, B, where=EN)) == []
    rows = {"a.tar": ["a.tar#0", "a.tar#1"], "b.tar": ["b.tar#0", "b.tar#1"]}
    assert left(table.plan(A, B, where=DE)) == list(rows.items())
    assert left(table.plan(A, B)) == list(rows.items())


def test_complete_under_no_condition_is_complete_under_any(table: Output) -> None:
    table.finished("run1", A)
    assert left(table.plan(A, where=EN)) == []


def test_two_conditions_can_take_turns(table: Output) -> None:
    table.finished("run1", A, where=EN)
    table.finished("run2", A, where=DE, clips=0)
    assert left(table.plan(A, where=EN)) == left(table.plan(A, where=DE)) == []
    assert left(table.plan(A)) == [("a.tar", ["a.tar#0", "a.tar#1"])]
    table.finished("run3", A, clips=0)
    assert left(table.plan(A)) == []


def test_a_new_version_is_complete_under_none_of_the_conditions_before(table: Output) -> None:
    table.finished("run1", A, where=EN)
    changed = replace(A, version="2")
    table.finished("run2", changed, where=DE, clips=0)
    assert left(table.plan(changed, where=DE)) == []
    assert left(table.plan(changed, where=EN)) == [("a.tar", ["a.tar#0", "a.tar#1"])]


def test_a_killed_run_goes_on_under_its_own_condition_only(table: Output) -> None:
    table.begin("run1", A, B, where=EN)
    table.write("run1", [(A, 0), (A, 1)])
    table.count("run1", A, 2)
    assert (table.plan(A, B, where=DE).run_id, table.plan(A, B).run_id) == ("run9", "run9")
    work = table.plan(A, B, where=EN)
    assert (work.run_id, left(work)) == ("run1", [("b.tar", [])])


def test_rows_of_other_runs_do_not_finish_a_killed_one(table: Output) -> None:
    # Two clips of A are English, as its count says, but only one was written; then the German ones came.
    table.begin("run1", A, where=EN)
    table.write("run1", [(A, 0)])
    table.count("run1", A, 2)
    table.begin("run2", A, where=DE)
    table.write("run2", [(A, 5), (A, 6)])
    table.ledger.finish("run2", {})
    work = table.plan(A, where=EN)
    # Nor does it go on under its id, which would put what it does before the run that came between.
    assert (work.run_id, left(work)) == ("run9", [("a.tar", ["a.tar#0", "a.tar#5", "a.tar#6"])])


def test_a_run_that_goes_on_counts_its_own_rows_and_leaves_out_those_of_others(table: Output) -> None:
    table.finished("run1", A, where=DE, clips=2)  # clips 0 and 1
    table.begin("run2", A, where=None)
    table.write("run2", [(A, 2)])
    work = table.plan(A)
    assert (work.run_id, work.rows_before_kill, work.clips_done) == ("run2", {A.uri: 1}, 3)
    table.ledger.begin(work)
    # Read again: five clips, three of them with rows; the run itself had written one.
    table.count("run2", A, 5, matched=3)
    table.write("run2", [(A, 3)], part=1)
    assert [name for name, _ in left(table.plan(A))] == ["a.tar"]
    table.write("run2", [(A, 4)], part=2)
    assert left(table.plan(A)) == []


def test_a_killed_run_is_closed_once_later_ones_did_its_work(table: Output) -> None:
    table.begin("run1", A, B)
    table.write("run1", [(A, 0)])
    work = table.plan(A, run_id="run2")
    assert work.run_id == "run2"
    table.ledger.begin(work)
    table.write("run2", [(A, 1)])
    table.ledger.finish("run2", {})
    assert table.plan(A).interrupted == []
    table.finished("run3", B)
    work = table.plan(A, B)
    assert (left(work), work.interrupted) == ([], ["run1"])
    table.ledger.finish("run1", {}, to_the_end=False)
    assert table.plan(A, B).interrupted == []
    # What run1 says of itself is what it did, which is nothing to its end.
    plan = Path(table.ledger.home) / "shards" / "run1.jsonl"
    assert [json.loads(line)["finished"] for line in plan.read_text().splitlines()] == [False, False]


def limited(table: Output, run_id: str) -> None:
    """A run of five clips over A (three clips), B (three) and C: B was cut, C never read."""
    table.begin(run_id, A, B, C)
    table.write(run_id, [(A, 0), (A, 1), (A, 2), (B, 0), (B, 1)])
    table.count(run_id, A, 3)
    table.count(run_id, B, 3)


def test_the_next_run_goes_on_after_a_limit(table: Output) -> None:
    limited(table, "run1")
    table.ledger.finish("run1", {}, to_the_end=False)
    work = table.plan(A, B, C)
    assert (work.run_id, work.continued, work.skipped) == ("run9", False, 1)
    assert left(work) == [("b.tar", ["b.tar#0", "b.tar#1"]), ("c.tar", [])]
    table.ledger.begin(work)
    table.write("run9", [(B, 2), (C, 0)])
    table.ledger.finish("run9", {})
    assert left(table.plan(A, B, C)) == []


def test_killed_while_it_closes_a_limited_run_goes_on(table: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(table, "run1")
    with monkeypatch.context() as patch:
        patch.setattr(table.ledger, "_write_json", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            table.ledger.finish("run1", {}, to_the_end=False)
    work = table.plan(A, B, C)
    assert (work.run_id, left(work)) == ("run1", [("b.tar", ["b.tar#0", "b.tar#1"]), ("c.tar", [])])


def test_a_run_goes_on_only_where_nothing_came_between(table: Output) -> None:
    table.begin("run1", A)
    table.finished("run2", C)
    assert table.plan(A).run_id == "run1"
    assert table.plan(A, B).run_id == "run1"
    assert table.plan(A, replace(C, version="2")).run_id == "run9"
    # Otherwise its new version of A would count as older than the one that run3 read.
    table.finished("run3", A, where=EN)
    assert table.plan(replace(A, version="2")).run_id == "run9"


def test_a_limit_under_a_condition(table: Output) -> None:
    table.begin("run1", A, B, where=EN)
    table.write("run1", [(A, 0)])
    table.count("run1", A, 1)
    table.ledger.finish("run1", {}, to_the_end=False)
    assert left(table.plan(A, B, where=EN)) == [("b.tar", [])]
    assert left(table.plan(A, B)) == [("a.tar", ["a.tar#0"]), ("b.tar", [])]


def test_loose_files_of_a_limited_run(table: Output) -> None:
    one, other = shard("x.wav", "audio"), shard("y.wav", "audio")
    table.begin("run1", one, other)
    table.write("run1", [(one, "x")])
    table.ledger.finish("run1", {}, to_the_end=False)
    assert left(table.plan(one, other)) == [("y.wav", [])]
    # A file that changed has its row from before; a limited run does not ask for it again and again.
    changed = replace(one, version="2")
    work = table.plan(changed)
    assert left(work) == [("x.wav", ["x.wav#x"])]
    table.ledger.begin(work)
    table.ledger.finish(work.run_id, {}, to_the_end=False)
    assert left(table.plan(changed, run_id="runA")) == []


def test_plans_written_before_there_were_conditions_still_count(table: Output) -> None:
    table.finished("run1", A)
    plan = Path(table.ledger.home) / "shards" / "run1.jsonl"
    record = json.loads(plan.read_text())
    old = {name: record[name] for name in ("uri", "name", "format", "size", "version")}
    plan.write_text(json.dumps(old) + "\n")
    assert left(table.plan(A, B)) == [("b.tar", [])]
    assert left(table.plan(A, where=EN)) == []
    assert ids_done(table.plan(replace(A, version="2"))) == {A.uri: ["a.tar#0", "a.tar#1"]}
