"""An exponential moving average of the weights (Polyak & Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """Averaged weights beside those that are trained.

    The decay rises from 0 with the number of updates, so that the first weights, which are random, are soon
    forgotten.

    Args:
        named: the weights; float32.
        decay: at most.
    """

    def __init__(self, named: Mapping[str, Tensor], decay: float) -> None:
        self._named, self._decay = named, decay
        self.weights = {name: tensor.detach().clone() for name, tensor in named.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Adds the weights after a step, numbered from 0, to the average."""
        decay = min(self._decay, (step + 1) / (step + 10))
        held = [tensor.detach() for tensor in self._named.values()]
        torch._foreach_lerp_(list(self.weights.values()), held, 1 - decay)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, tensor in self._named.items():
            own = self.weights[name]
            held = tensor.detach().clone()
            tensor.copy_(own)
            own.copy_(held)
