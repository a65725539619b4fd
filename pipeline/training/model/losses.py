"""What a model says of a batch while it learns."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from pipeline.training.batches.batch import Batch


@dataclass(frozen=True)
class TaskLoss:
    """One task's loss of a batch, not yet divided: a step may hold many batches, on many workers.

    Attributes:
        total: () float32, with gradient: the sum of what `count` counts; the loss of a step is the sum of its
            totals over the sum of its counts.
        count: clips (transcribe, classify, embed), frames times outputs (diarize) or masked frames.
        clips: (clips,) float32, no gradient: the mean loss of each clip; NaN where it has no target, infinite
            where no path of CTC is as short as the clip.
        facts: sums worth watching; divided by `count`, summed too, they are means. See `objectives`.
    """

    total: Tensor
    count: float
    clips: Tensor
    facts: Mapping[str, float] = field(default_factory=dict)


class Learner(Protocol):
    """What is trained: `pipeline.training.model.multitask.MultiTask`."""

    def __call__(
        self, batch: Batch, *, skipped_layers: Collection[int] | None = None, margin: float | None = None
    ) -> Mapping[str, TaskLoss]: ...

    def counts(self, batch: Batch) -> Mapping[str, float]:
        """What each task's `TaskLoss.count` will be, without computing it."""
