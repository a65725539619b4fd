"""The settings of a run, its steps, and the interface for reporting them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from pipeline.training.batches.batch import Pack
from pipeline.training.batches.order import Order
from pipeline.training.batches.reader import Reader
from pipeline.training.loop.step import Sums
from pipeline.training.optimiser.schedule import Schedule
from pipeline.training.state.checkpoints import Kept, Progress


@dataclass(frozen=True)
class Course:
    """The settings of a run that decide its steps.

    Attributes:
        identity: digest of all that decides what a step computes.
        weights: of each task's loss in the sum.
        schedule: its number of steps is set when that is known.
        packs_per_step: where the run begins here.
        layers, layerdrop: of the encoder.
        margin: of the AM-softmax, once it has grown; None: no such head.
        freeze_encoder_steps: how long only heads learn.
        eval_steps: None: once an epoch.
        max_steps, num_epochs, max_minutes: one of them says how long the run is.
        max_skipped: steps with something that is not finite before the run breaks off.
    """

    seed: int
    identity: str
    weights: Mapping[str, float]
    schedule: Schedule
    kept: Kept
    packs_per_step: int
    layers: int
    layerdrop: float = 0.0
    margin: float | None = None
    autocast: torch.dtype | None = None
    max_grad_norm: float = 1.0
    freeze_encoder_steps: int = 0
    eval_steps: int | None = None
    save_steps: int | None = None
    patience: int | None = None
    max_skipped: int = 10
    max_steps: int | None = None
    num_epochs: float | None = None
    max_minutes: float | None = None

    def length(self, steps_per_epoch: int) -> int | None:
        """Of the run, in steps; None where `max_minutes` decides, by the time that a step takes."""
        if self.max_steps is not None or self.max_minutes is not None:
            return self.max_steps
        return max(1, math.ceil((self.num_epochs or 1.0) * steps_per_epoch))


@dataclass(frozen=True)
class Planned:
    """A step that has yet to be computed.

    Attributes:
        step: from 1.
        packs: of all workers.
        ends_epoch: the next step begins another epoch.
    """

    step: int
    epoch: int
    packs: Sequence[Pack]
    ends_epoch: bool


@dataclass(frozen=True)
class StepReport:
    """The outcome of a step.

    Attributes:
        sums: of this worker; its `clips` have their losses.
        numbers: over all workers: see `Sums.numbers`.
        rate: share of the peak learning rates.
        learned: the weights were changed.
        bad: ids of the clips that were left out since a loss or a gradient was not finite.
        unusable: those whose stored features are not: see `Batch`.
        seconds: of the step, the wait for data included.
        waited_s: for data, before the step.
    """

    step: int
    epoch: int
    sums: Sums
    numbers: Mapping[str, float]
    rate: float
    grad_norm: float
    learned: bool
    bad: Sequence[str]
    unusable: Sequence[str]
    seconds: float
    waited_s: float


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        problem: why it broke off; None: it is done.
    """

    progress: Progress
    max_steps: int
    problem: str | None = None


@dataclass(frozen=True)
class Feed:
    """Where batches come from."""

    order: Order
    reader: Reader


class Watcher(Protocol):
    """Receives the progress of a run; one on each worker."""

    def resumed(self, step: int) -> None:
        """The run continues after this step: drop what was reported of later ones."""

    def step(self, report: StepReport) -> None: ...

    def measured(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def saving(self, step: int) -> None:
        """A checkpoint is about to be written: store what was reported so far first."""
