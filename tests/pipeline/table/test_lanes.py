"""Several jobs on one table, each with its lane: every clip once, and none touches what others write."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpus.clips import Shard
from pipeline.corpus.lanes import Lane, lane_named, lane_suffix, may_meet
from pipeline.errors import JobError
from pipeline.spec import TranscribeSpec
from pipeline.storage import Storage, local
from pipeline.table.ledger import Ledger
from pipeline.table.reader import visible_sizes
from pipeline.table.retry import drop_rows
from pipeline.table.scan import opened, scan
from tests.pipeline.table.outputs import STORAGE, UNDECODABLE, UNREADABLE, Output, ids_done, shard

SHARDS = [shard(f"{number:03}.tar") for number in range(24)]


def lanes(folder: Path, of: int, stack: ExitStack) -> list[Output]:
    tables = [Output(folder, Lane(number, of)) for number in range(1, of + 1)]
    for table in tables:
        stack.callback(table.release)
    return tables


def mine(table: Output, shards: list[Shard] = SHARDS) -> list[Shard]:
    lane = table.ledger.lane
    return [each for each in shards if lane is None or lane.takes(each.uri)]


def run_id(table: Output, name: str) -> str:
    return name + lane_suffix(table.ledger.lane)


@given(st.text(), st.integers(1, 40))
def test_each_name_is_in_one_lane(name: str, of: int) -> None:
    assert sum(Lane(number, of).takes(name) for number in range(1, of + 1)) == 1


def test_lanes_are_about_equal() -> None:
    names = [f"train/shard-{number:05}.tar" for number in range(16_000)]
    counts = [sum(Lane(number, 16).takes(name) for name in names) for number in range(1, 17)]
    assert 900 < min(counts) <= max(counts) < 1100


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "-1/2", "1/2/3", "1 /2", ""])
def test_what_is_no_lane(text: str) -> None:
    with pytest.raises(ValueError, match="lane: "):
        Lane.parse(text)


def test_names_of_runs_tell_the_lane() -> None:
    assert lane_named(f"20261127T101500Z-ab12cd{lane_suffix(Lane.parse('3/16'))}") == Lane(3, 16)
    assert lane_named("20261127T101500Z-ab12cd") is None
    assert may_meet(Lane(1, 2), Lane(1, 2))
    assert may_meet(Lane(1, 2), Lane(1, 3))
    assert may_meet(None, Lane(1, 2))
    assert not may_meet(Lane(1, 2), Lane(2, 2))


def test_together_they_do_every_shard_once_and_other_nights_may_have_other_lanes(tmp_path: Path) -> None:
    with ExitStack() as stack:
        tables = lanes(tmp_path / "out", 3, stack)
        for table in tables:  # all at the same time
            table.ledger.declare({"models": {}})
            table.begin(run_id(table, "run1"), *mine(table))
        for table in tables:
            table.write(run_id(table, "run1"), [(each, 0) for each in mine(table)])
            for each in mine(table):
                table.count(run_id(table, "run1"), each, 1)
        for table in tables:
            table.ledger.finish(run_id(table, "run1"), {})
            assert table.plan(*mine(table)).shards == []
        assert list(tables[0].rows()) == [f"{each.name}#0" for each in SHARDS]
    grown = [*SHARDS, *(shard(f"new-{number}.tar") for number in range(8))]
    with ExitStack() as stack:
        tables = lanes(tmp_path / "out", 2, stack)
        works = [table.plan(*mine(table, grown), run_id=run_id(table, "run2")) for table in tables]
        assert sorted(each.name for work in works for each in work.shards) == [
            f"new-{n}.tar" for n in range(8)
        ]
        assert all(work.shards for work in works)


def test_what_another_lane_is_writing_is_left_alone_and_what_a_dead_one_left_is_not(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first, second = lanes(tmp_path / "out", 2, stack)
        first.begin(run_id(first, "run1"), *mine(first))
        pending = first.write(run_id(first, "run1"), [(mine(first)[0], 0)], commit=False)
        temporary = Path(first.ledger.records.workshop, f"{pending.name}.7-ab.tmp")
        temporary.touch()
        second.ledger.open()
        assert (pending.exists(), temporary.exists()) == (True, True)
        first.ledger.open()
        assert (pending.exists(), temporary.exists()) == (False, False)
        pending = first.write(run_id(first, "run1"), [(mine(first)[0], 0)], part=1, commit=False)
    other = Output(tmp_path / "out", Lane(1, 3))
    other.ledger.open()
    assert not pending.exists()
    other.release()


@pytest.mark.parametrize("name", ["lock{}.json", "run1{}.json", "shards/run1{}.jsonl", "files/run1{}.jsonl"])
def test_small_files_that_another_lane_is_writing_are_left_alone(tmp_path: Path, name: str) -> None:
    with ExitStack() as stack:
        first, second = lanes(tmp_path / "out", 2, stack)
        file = Path(first.ledger.home, name.format(lane_suffix(first.ledger.lane)))
        with local.temporary(file) as half:
            half.touch()
            second.ledger.open()
            assert half.exists()


def test_a_file_that_another_lane_rewrites_meanwhile_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        first, second = lanes(tmp_path / "out", 2, stack)
        one, other = mine(first)[:2]
        first.begin(run_id(first, "run1"), one, other)
        first.write(run_id(first, "run1"), [(one, 0), (other, 1)], errors={0: UNREADABLE, 1: UNREADABLE})
        first.ledger.finish(run_id(first, "run1"), {})

        def listed_late(output: str, storage: Storage) -> dict[str, int]:
            drop_rows(first.ledger, {one.uri: pa.array([f"{one.name}#0"])})
            return visible_sizes(output, storage)

        monkeypatch.setattr("pipeline.table.log.look.visible_sizes", listed_late)
        second.ledger.open()
        assert list(first.rows()) == [f"{other.name}#1"]


def test_lanes_go_on_with_a_table_of_an_earlier_version(tmp_path: Path) -> None:
    whole = Output(tmp_path / "out")
    STORAGE.write_bytes(f"{whole.ledger.home}/table.json", b'{"models": {}, "format": 1, "carried": "x"}')
    whole.ledger.open()
    whole.release()
    with ExitStack() as stack:
        for table in lanes(tmp_path / "out", 2, stack):
            table.ledger.open()
            table.ledger.declare({"models": {}, "passthrough": "x"})


def test_a_killed_lane_goes_on_alone_and_nobody_closes_its_run(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first, second = lanes(tmp_path / "out", 2, stack)
        todo = mine(first)
        first.begin(run_id(first, "run1"), *todo)
        first.write(run_id(first, "run1"), [(todo[0], 0)])
        first.count(run_id(first, "run1"), todo[0], 1)
        work = second.plan(*mine(second), run_id=run_id(second, "run2"))
        assert (work.run_id, work.interrupted) == (run_id(second, "run2"), [])
        work = first.plan(*todo, run_id="no")
        assert (work.run_id, work.shards) == (run_id(first, "run1"), todo[1:])
        for each in todo[1:]:
            first.write(run_id(first, "run1"), [(each, 0)], part=todo.index(each))
            first.count(run_id(first, "run1"), each, 1)
        assert second.plan(*mine(second)).interrupted == []
        assert first.plan(*todo).interrupted == [run_id(first, "run1")]


def test_lanes_agree_on_the_table_or_do_not_start(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first, second = lanes(tmp_path / "out", 2, stack)
        first.ledger.declare({"models": {}, "dtype": "float32"})
        second.ledger.declare({"models": {}, "dtype": "float32"})
        with pytest.raises(JobError, match="was just begun with other settings"):
            second.ledger.declare({"models": {}, "dtype": "float16"})


@pytest.mark.parametrize("state", ["overwrite", "earlier"])
def test_a_lane_does_not_begin_what_changes_the_whole_table(tmp_path: Path, state: str) -> None:
    whole = Output(tmp_path / "out")
    name, held = ("overwrite.json", b'{"files": []}') if state == "overwrite" else ("table.json", b"{}")
    STORAGE.write_bytes(f"{whole.ledger.home}/{name}", held)
    whole.release()
    lane = Output(tmp_path / "out", Lane(1, 2))
    with pytest.raises(JobError, match="run one job without --lane first"):
        lane.ledger.open()
    lane.release()


def test_what_storage_did_not_deliver_is_tried_again_by_whoever_may_change_the_file(tmp_path: Path) -> None:
    errors = {0: UNREADABLE, 1: UNDECODABLE}
    whole = Output(tmp_path / "out")
    whole.begin("run1", *SHARDS)
    whole.write("run1", [(each, key) for each in SHARDS for key in (0, 1)], errors=errors)
    whole.ledger.finish("run1", {})
    whole.release()
    lane = Output(tmp_path / "out", Lane(1, 2))
    assert lane.plan(*mine(lane)).shards == []
    extra = [shard("a.tar")] if Lane(1, 2).takes(shard("a.tar").uri) else [shard("b.tar")]
    lane.begin("run2-1of2", *extra)
    lane.write("run2-1of2", [(extra[0], 0), (extra[0], 1)], errors=errors)
    lane.ledger.finish("run2-1of2", {})
    work = lane.plan(*extra)
    assert (work.shards, ids_done(work)) == (extra, {extra[0].uri: [f"{extra[0].name}#1"]})
    lane.release()
    whole = Output(tmp_path / "out")
    work = whole.start(whole.plan(*SHARDS))
    assert work.shards == SHARDS
    assert {key.split("#")[1] for key in whole.rows() if not key.startswith(extra[0].name)} == {"1"}
    whole.release()


def test_inputs_with_the_same_names_are_shared_out_too(tmp_path: Path) -> None:
    """Which name a shard has depends on those that earlier lanes have written down."""
    for folder in ("in", "more"):
        (tmp_path / folder).mkdir()
        for number in range(12):
            (tmp_path / folder / f"{number}.wav").write_bytes(b"RIFF")
    read: list[str] = []
    for number in range(1, 4):
        spec = TranscribeSpec(
            input=[str(tmp_path / folder) for folder in ("in", "more")],
            output=str(tmp_path / "out"),
            model="m",
            lane=f"{number}/3",
        )
        ledger = Ledger(spec.table.output, STORAGE, spec.table.shards_of_lane)
        with opened(spec, ledger):
            work = scan(spec, ledger, spec.output_settings()).work
            ledger.begin(work)
        read += [each.uri for each in work.shards]
    assert len(read) == len(set(read)) == 24
