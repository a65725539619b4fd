"""What a model says of a batch while it learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor
from torch.export import register_dataclass


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


# FSDP2 hooks the tensors that it finds in what `forward` returns: without, no gradient is summed up where the
# encoder learns nothing.
register_dataclass(TaskLoss)
