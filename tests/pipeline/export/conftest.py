"""Fixtures for the tests of the export."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.export.tables import ROWS, Run, write


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two files, whose order is that of their names, and a `_run/` that is not part of the table."""
    folder = write(tmp_path / "table", ROWS[3:], "part-1.parquet")
    write(folder, ROWS[:3], "part-0.parquet")
    write(folder / "_run" / "commit", ROWS[:1])
    (folder / "_run" / "table.json").write_text("{}")
    return folder


@pytest.fixture
def run(tmp_path: Path, table: Path) -> Run:
    return Run(tmp_path, table)
