"""What the tests of the rooms share."""

from __future__ import annotations

import pytest

from pipeline.storage import failures


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage that fails is asked again at once."""
    monkeypatch.setattr(failures, "DELAYS_S", (0.0, 0.0, 0.0))
