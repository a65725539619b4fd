"""Learning-rate schedules: the share of the peak rate at each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to the peak, then what `name` says, down to `final` at the last step.

    - tri_stage: stays at the peak for `hold`, then falls exponentially (Park et al. 2019,
      arXiv:1904.08779; so wav2vec 2.0 is fine-tuned, arXiv:2006.11477).
    - cosine: stays at the peak for `hold`, then falls along half a cosine (Loshchilov & Hutter 2017,
      arXiv:1608.03983).
    - linear: falls along a line. constant: stays.

    Attributes:
        steps: of the run.
        warmup, hold: shares of the steps.
        final: share of the peak rate at the end.
    """

    name: str
    steps: int
    warmup: float = 0.1
    hold: float = 0.4
    final: float = 0.05

    def __call__(self, step: int) -> float:
        """The share at a step, from 0; more than zero from the first one on."""
        warmup = math.ceil(self.warmup * self.steps)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        hold = math.ceil(self.hold * self.steps) if self.name in ("tri_stage", "cosine") else 0
        falling = self.steps - warmup - hold
        done = min(max(step - warmup - hold, 0) / falling, 1.0) if falling > 0 else 0.0
        return _FALLS[self.name](done, self.final)


_FALLS: dict[str, Callable[[float, float], float]] = {
    "tri_stage": lambda done, final: float(max(final, 1e-8) ** done),
    "cosine": lambda done, final: final + (1 - final) * (1 + math.cos(math.pi * done)) / 2,
    "linear": lambda done, final: 1 - (1 - final) * done,
    "constant": lambda done, final: 1.0,
}
SCHEDULES = tuple(_FALLS)
