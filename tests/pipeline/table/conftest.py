"""Fixtures for the tests of the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.table.outputs import Output


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Output]:
    held = Output(tmp_path / "out")
    yield held
    held.release()
