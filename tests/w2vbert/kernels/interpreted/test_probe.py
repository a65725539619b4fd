"""A device is trusted with kernels after they gave PyTorch's numbers on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from w2vbert.kernels import attention, convolution, probe

CPU = torch.device("cpu")


def test_kernels_that_give_pytorch_s_numbers_are_trusted() -> None:
    probe.run(CPU)


def _other_band(kernel: Callable[..., Any]) -> Callable[..., Any]:
    return lambda projected, band, layout, scale: kernel(
        projected, band._replace(left=band.right, right=band.left), layout, scale
    )


def _shifted(kernel: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: kernel(*arguments).roll(1, dims=0)


@pytest.mark.parametrize(
    ("module", "name", "spoil"),
    [(attention, "attention", _other_band), (convolution, "convolution", _shifted)],
    ids=["attention", "convolution"],
)
def test_others_are_not(module: Any, name: str, spoil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, name, spoil(getattr(module, name)))
    with pytest.raises(RuntimeError, match=rf"{name} is .*% apart"):
        probe.run(CPU)
