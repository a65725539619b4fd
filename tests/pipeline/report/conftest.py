"""Fixtures for the tests of the report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.report.scoring import score
from pipeline.report.sections import speakers
from pipeline.report.table import Report, opened
from pipeline.storage import Storage, StorageOptions
from tests.pipeline.report.tables import write


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("report") / "table")


@pytest.fixture(scope="session")
def report(table: Path) -> Iterator[Report]:
    """The table, scored."""
    with opened(str(table), Storage(StorageOptions()), seed=0) as report:
        score(report)
        speakers.prepare(report)
        yield report
