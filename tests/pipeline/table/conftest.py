"""Fixtures for the tests of the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.table.outputs import Output


@pytest.fixture
def table(tmp_path: Path) -> Output:
    return Output(tmp_path / "out")
