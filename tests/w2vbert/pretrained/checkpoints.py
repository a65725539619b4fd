"""Weights of models, compared."""

from __future__ import annotations

import torch

HEAD = {"lm_head.weight", "lm_head.bias"}


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
