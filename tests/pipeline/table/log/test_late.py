"""What comes late, or is cut off while a run ends: no file counts twice, and none is named that is gone."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import pytest

from pipeline.errors import JobError
from pipeline.storage import Storage
from pipeline.table.ledger import Ledger
from pipeline.table.log.records import FileRecord, Records
from pipeline.table.log.writer import Written
from tests.pipeline.table.log.tasks import names, rows, writer
from tests.pipeline.table.outputs import UNREADABLE, A, B, Output


@pytest.mark.parametrize("meanwhile", ["another execution", "the next job"])
def test_a_task_that_commits_after_its_run_is_over_commits_nothing(
    table: Output, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """It was suspended between its last look at the lock and its record."""
    table.begin("run1", A)
    late, other = writer(table), writer(table, "0" if meanwhile == "another execution" else "1")
    commit, first = Records.commit, iter([True])

    def suspended(records: Records, *given: Any) -> list[FileRecord]:
        if next(first, False):
            if meanwhile == "the next job":
                table.ledger.open()  # withdraws the task
            table.ledger.finish("run1", {}, written=other.write([rows(0, 1)], 0))
        return commit(records, *given)

    monkeypatch.setattr(Records, "commit", suspended)
    if meanwhile == "another execution":
        assert late.write([rows(0, 1)], 0).files == table.ledger.files()
    else:
        with pytest.raises(JobError, match="another job took over this table"):
            late.write([rows(0, 1)], 0)
    table.ledger.open()
    assert list(table.rows()) == ["a.tar#0", "a.tar#1"]
    assert names(table) == [record.file for record in table.ledger.files()]


@pytest.mark.parametrize("at", [(Ledger, "_write_json"), (Storage, "remove")])
@pytest.mark.parametrize("kills", range(3))
def test_errors_of_a_run_that_was_killed_while_it_merged_are_retried(
    table: Output, monkeypatch: pytest.MonkeyPatch, kills: int, at: tuple[type, str]
) -> None:
    """A record may stand in two places: they must name the same file."""
    table.begin("run1", A, B)
    table.write("run1", [(A, 0), (A, 1)], errors={0: UNREADABLE, 1: UNREADABLE})
    table.count("run1", A, 2)
    with monkeypatch.context() as patch:
        patch.setattr(*at, Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            table.ledger.finish("run1", {}, written=Written([], {B.uri: "503"}))
    left = iter(range(kills))
    with monkeypatch.context() as patch:
        write = Records.write

        def killed(records: Records, *given: Any) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            write(records, *given)

        patch.setattr(Records, "write", killed)
        with suppress(KeyboardInterrupt):
            table.start(table.plan(A, B, run_id="run2"))
    table.ledger.open()
    table.start(table.plan(A, B, run_id="run3"))
    table.ledger.open()
    assert table.rows() == {}
    assert names(table) == []
