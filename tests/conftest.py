"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch is imported: several processes with several threads each trample one another on small machines.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _shared(name: str) -> Path:
    base = Path(os.environ.get("W2VBERT_SHARED", ROOT.parent / "shared"))
    path = base / name
    if not path.is_dir():
        pytest.skip(f"{name}/ of the shared test material is absent (set W2VBERT_SHARED to its folder)")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real speech with labels; the test is skipped where it is absent."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Folder of checkpoints made with the peer; the test is skipped where it is absent."""
    return _shared("models")
