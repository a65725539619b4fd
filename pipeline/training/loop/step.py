"""One step on one worker: the gradients of its packs, each halved where it does not fit the memory."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.annotate.devices import says_out_of_memory
from pipeline.training.batches.batch import Batch, halves, silence
from pipeline.training.group import Group
from pipeline.training.model.learner import Learner
from pipeline.training.model.losses import TaskLoss
from pipeline.training.report.losses import ClipLoss, clip_losses


@dataclass(frozen=True)
class Draw:
    """What is the same for all packs of a step.

    Attributes:
        weights: of each task's loss in the sum.
        skipped_layers: by LayerDrop; all workers skip the same.
        margin: of the AM-softmax; None: the head's own.
        autocast: type of the arithmetic; None: that of the weights.
    """

    weights: Mapping[str, float]
    skipped_layers: Collection[int] = ()
    margin: float | None = None
    autocast: torch.dtype | None = None


@dataclass
class Sums:
    """What the packs of a step add up to on one worker.

    Attributes:
        numbers: by name: `<task>.total`, `<task>.count`, `<task>.<fact>`, frames, clips.
        clips: with a loss that is finite.
        bad: ids of the clips in batches whose loss was not.
    """

    numbers: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    clips: list[ClipLoss] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def take(self, batch: Batch, losses: Mapping[str, TaskLoss]) -> None:
        lengths = batch.features.lengths
        self.numbers["frames"] += sum(lengths)
        self.numbers["clips"] += len(lengths)
        for task, loss in losses.items():
            self.numbers[f"{task}.total"] += float(loss.total.detach())
            self.numbers[f"{task}.count"] += loss.count
            for name, value in loss.facts.items():
                self.numbers[f"{task}.{name}"] += value
        self.clips += clip_losses(batch, losses)


class _DoesNotFitError(Exception):
    """A pack is too large for the memory."""


class Gradients:
    """Computes the gradients of a step. Once a pack did not fit, packs of more than half of it are halved.

    Args:
        sharded: the weights lie on all workers (FSDP), which therefore go through each pass together: none
            may leave one out, nor halve a pack by itself.
    """

    def __init__(self, model: Learner, group: Group, *, sharded: bool = False) -> None:
        self._model, self._group, self._sharded = model, group, sharded
        self._fits = float("inf")  # frames of a pack that is computed whole

    def of(self, batches: Sequence[Batch], draw: Draw, *, blank: bool = False) -> Sums:
        """Leaves in each weight's `grad` the gradient of this worker's share of the step's loss.

        Args:
            blank: the last batch counts nothing: it is only computed since the other workers have one more.

        For each task that loss is a sum over the clips of all workers, divided by what all workers count: so
        it does not matter how packs are shared out.
        """
        counting = batches[: len(batches) - blank]
        counts = self._counts(counting, draw)
        while True:
            self._model.zero_grad(set_to_none=True)
            sums = Sums()
            try:
                for batch in counting:
                    self._add(batch, draw, counts, sums)
                for batch in batches[len(counting) :]:
                    self._backward(batch, draw, _nothing(counts), Sums())
                return sums
            except _DoesNotFitError:
                continue  # what a failed backward pass left in the gradients goes, and all is done again

    def _counts(self, batches: Sequence[Batch], draw: Draw) -> dict[str, float]:
        own: dict[str, float] = defaultdict(float)
        for batch in batches:
            for task, count in self._model.counts(batch).items():
                own[task] += count
        return self._group.sums(own, sorted(draw.weights))

    def _add(self, batch: Batch, draw: Draw, counts: Mapping[str, float], sums: Sums) -> None:
        frames, clips = sum(batch.features.lengths), len(batch.clip_ids)
        if frames > self._fits and clips > 1:
            for half in halves(batch):
                self._add(half, draw, counts, sums)
            return
        try:
            self._backward(batch, draw, counts, sums)
        except Exception as problem:
            if self._sharded or clips == 1 or not says_out_of_memory(problem):
                raise
            self._fits = frames / 2
        else:
            return
        # Here, where nothing holds what the failed pass computed.
        if self._group.device.type == "cuda":
            torch.cuda.empty_cache()
        raise _DoesNotFitError

    def _backward(self, batch: Batch, draw: Draw, counts: Mapping[str, float], sums: Sums) -> None:
        losses, total = self._forward(batch, draw, counts)
        if total is None:
            return
        is_bad = not bool(torch.isfinite(total))
        if is_bad:
            sums.bad += batch.all_ids
        if self._sharded and self._any(is_bad):
            # Its gradients would reach all workers: they go through this pass again, with silence for it.
            del losses, total  # what they hold of the memory
            again = (silence(batch), draw, _nothing(counts)) if is_bad else (batch, draw, counts)
            losses, total = self._forward(*again)
            assert total is not None
        elif is_bad:
            return
        total.backward()
        if not is_bad:
            sums.take(batch, losses)

    def _forward(
        self, batch: Batch, draw: Draw, counts: Mapping[str, float]
    ) -> tuple[Mapping[str, TaskLoss], Tensor | None]:
        """The losses of a batch, and its share of the step's loss; None where nothing counts in the step."""
        torch.manual_seed(batch.seed)
        autocast = (
            contextlib.nullcontext()
            if draw.autocast is None
            else torch.autocast(self._group.device.type, draw.autocast)
        )
        with autocast:
            losses = self._model(batch, skipped_layers=draw.skipped_layers, margin=draw.margin)
        parts = [
            loss.total * (draw.weights[task] / counts[task]) for task, loss in losses.items() if counts[task]
        ]
        return losses, torch.stack(parts).sum() if parts else None

    def _any(self, flag: bool) -> bool:
        """Whether it is so on any worker."""
        return self._group.sums({"flag": float(flag)}, ["flag"])["flag"] > 0


def _nothing(counts: Mapping[str, float]) -> dict[str, float]:
    """Counts by which a batch adds nothing to the gradients, but takes part in the tasks of the step."""
    return {task: math.inf if count else 0.0 for task, count in counts.items()}
