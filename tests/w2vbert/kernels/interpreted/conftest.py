"""Tests of kernels under Triton's interpreter, which a process has to choose before it imports Triton:
`tests/w2vbert/kernels/test_interpreted.py` starts one that does."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from torch import Tensor

if os.environ.get("TRITON_INTERPRET") == "1":
    from bench.gpu.interpreter import mend

    mend()
else:
    collect_ignore_glob = ["test_*.py"]

Both = Callable[[Callable[[], Tensor]], tuple[Tensor, Tensor]]


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Both:
    """Runs a function with PyTorch's operators and with kernels."""

    def run(function: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        results = []
        for backend in ("torch", "triton"):
            monkeypatch.setenv("W2VBERT_BACKEND", backend)
            results.append(function())
        return results[0], results[1]

    return run
