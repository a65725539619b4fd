"""The steps of a run, on each of its workers: plain torch, with or without Ray."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice, tee
from statistics import median

import numpy as np
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pipeline.errors import JobError
from pipeline.training.batches.batch import Batch, Pack
from pipeline.training.loop.course import Course, Feed, Outcome, Planned, StepReport, Watcher
from pipeline.training.loop.step import Draw, Gradients
from pipeline.training.optimiser.groups import set_rate
from pipeline.training.optimiser.schedule import Schedule
from pipeline.training.state.checkpoints import Begun, Checkpoints, Progress, Snapshot
from pipeline.training.state.weights import WeightsKeeper

_TIMED_PACKS = 8
_ROOM = 1.1  # beside steps there are validations and checkpoints


class Trainer:
    """One worker of a run.

    Args:
        keeper: the weights, their optimiser and their average.
        validate: measures the model, on all workers together, each of which has the result; empty where there
            is nothing to validate on.
    """

    def __init__(
        self,
        course: Course,
        keeper: WeightsKeeper,
        feed: Feed,
        checkpoints: Checkpoints,
        validate: Callable[[], Mapping[str, float]],
        watcher: Watcher,
    ) -> None:
        self._course, self._keeper = course, keeper
        self._order, self._reader = feed.order, feed.reader
        self._checkpoints, self._validate, self._watcher = checkpoints, validate, watcher
        self._group = keeper.group
        self._gradients = Gradients(keeper.model, keeper.group, sharded=keeper.sharded)
        self._progress = Progress()
        self._waited_s = 0.0  # of what the reader says, what steps had in theirs

    def run(self) -> Outcome:
        """Begins the run or goes on with it, to its end or until too much of it failed."""
        begun = self._begin()
        if self._no_longer_better():  # it was so before a start that did not come to the end
            return Outcome(self._progress, begun.max_steps)
        self._waited_s = self._reader.waited_s
        schedule = replace(self._course.schedule, steps=begun.max_steps)
        for planned, batches in self._batches(begun):
            bad = self._step(planned, batches, schedule)
            if self._progress.skipped > self._course.max_skipped:
                return Outcome(self._progress, begun.max_steps, self._too_many(bad))
            if self._pause(planned, begun) and self._no_longer_better():
                break
        return Outcome(self._progress, begun.max_steps)

    # Where it begins

    def _begin(self) -> Begun:
        """Decides the run's length, or reads it, and restores the newest checkpoint."""
        checkpoints, group = self._checkpoints, self._group
        begun = group.lead(checkpoints.begun)
        if begun is None:
            own = Begun(
                self._course.identity,
                self._length(self._rehearse()),
                self._course.packs_per_step,
                self._order.budget,
                self._order.window_frames,
            )
            begun = group.lead(lambda: checkpoints.begin(own))
        if begun.identity != self._course.identity:
            raise JobError(
                f"{checkpoints.home} is of a run with other settings or data: use another --output, or "
                "--overwrite"
            )
        newest = group.lead(checkpoints.newest)
        if newest is not None:
            snapshot = checkpoints.load(newest)
            self._progress = snapshot.progress
            self._keeper.restore(snapshot)
        group.lead(lambda: checkpoints.prune(self._course.kept))
        self._watcher.resumed(self._progress.step)
        return begun

    def _rehearse(self) -> float:
        """Computes the dearest pack, so that memory fails now, and some others.

        Returns:
            Seconds that a step will take.
        """
        packs = self._order.packs(0)
        timed = packs[:: max(1, len(packs) // _TIMED_PACKS)][:_TIMED_PACKS]
        seconds = []
        self._keeper.model.train()
        for batch in self._reader.stream([self._order.dearest(0), *timed]):
            started = time.perf_counter()
            self._gradients.of([batch], self._draw(0, 1))
            seconds.append(time.perf_counter() - started)
        self._keeper.model.zero_grad(set_to_none=True)
        return math.ceil(self._course.packs_per_step / self._group.size) * median(seconds[1:])

    def _length(self, step_s: float) -> int:
        """Of the run, in steps."""
        course = self._course
        if course.max_minutes is not None:
            return max(1, round(60 * course.max_minutes / (step_s * _ROOM)))
        length = course.length(self._order.steps(course.packs_per_step).per_epoch)
        assert length is not None
        return length

    # Its steps

    def _planned(self, begun: Begun) -> Iterator[Planned]:
        """The steps that are left: functions of the seed, whatever the workers are."""
        steps = self._order.steps(begun.packs_per_step)
        for before in range(self._progress.step, begun.max_steps):
            step = before + 1
            yield Planned(step, steps.epoch(before), steps[before], step % steps.per_epoch == 0)

    def _batches(self, begun: Begun) -> Iterator[tuple[Planned, list[Batch]]]:
        """The steps with this worker's share of each, which is read ahead."""
        steps, ahead = tee(self._planned(begun))
        stream = self._reader.stream(pack for planned in ahead for pack in self._share(planned))
        for planned in steps:
            yield planned, list(islice(stream, len(self._share(planned))))

    def _share(self, planned: Planned) -> list[Pack]:
        own = self._group.share(planned.packs)
        if self._has_blank(planned):
            own.append(planned.packs[0])
        return own

    def _has_blank(self, planned: Planned) -> bool:
        """Whether the last pack of this worker counts nothing: with sharded weights each needs as many."""
        return self._keeper.sharded and self._group.lacks_one(planned.packs)

    def _draw(self, step: int, steps: int) -> Draw:
        course = self._course
        random = np.random.Generator(np.random.PCG64([course.seed, step]))
        skipped = np.flatnonzero(random.random(course.layers) < course.layerdrop).tolist()
        margin = None if course.margin is None else course.margin * min(1.0, 3 * step / steps)
        return Draw(course.weights, skipped, margin, course.autocast)

    def _step(self, planned: Planned, batches: Sequence[Batch], schedule: Schedule) -> list[str]:
        """Learns from one step; ids of the clips that it could not learn from."""
        started, keeper = time.perf_counter(), self._keeper
        keeper.model.train()
        keeper.hold_encoder(planned.step <= self._course.freeze_encoder_steps)
        blank = self._has_blank(planned)
        sums = self._gradients.of(batches, self._draw(planned.step, schedule.steps), blank=blank)
        rate = schedule(planned.step - 1)
        norm = self._learn(planned.step, rate)
        own, bad = batches[: len(batches) - blank], sums.bad
        if not (learned := math.isfinite(norm)):  # whichever clip it was
            bad, sums.clips = [clip_id for batch in own for clip_id in batch.all_ids], []
        left_out = [clip_id for batch in own for clip_id in batch.unusable]
        told = self._group.gather((dict(sums.numbers), bad, left_out))
        numbers = Counter[str]()
        for its_numbers, _, _ in told:
            numbers.update(its_numbers)
        all_bad, unusable = ([*chain.from_iterable(its[part] for its in told)] for part in (1, 2))
        waited_s, self._waited_s = self._reader.waited_s - self._waited_s, self._reader.waited_s
        progress, seconds = self._progress, time.perf_counter() - started + waited_s
        progress.step, progress.seconds = planned.step, progress.seconds + seconds
        progress.skipped += bool(all_bad)
        step, epoch = planned.step, planned.epoch
        self._watcher.step(
            StepReport(step, epoch, sums, numbers, rate, norm, learned, all_bad, unusable, seconds, waited_s)
        )
        return all_bad

    def _learn(self, step: int, rate: float) -> float:
        """Changes the weights by the gradients of all workers; the norm of these, and if that is not finite,
        nothing is changed."""
        keeper = self._keeper
        if not keeper.sharded:
            self._group.sum_gradients(keeper.named.values())
        learning = [parameter for parameter in keeper.named.values() if parameter.requires_grad]
        norm = _number(nn.utils.clip_grad_norm_(learning, self._course.max_grad_norm))
        if math.isfinite(norm) and norm > 0:  # where nothing counted, momentum would change weights
            set_rate(keeper.optimiser, rate)
            keeper.optimiser.step()
            if keeper.average is not None:
                keeper.average.update(step - 1)
        keeper.model.zero_grad(set_to_none=True)
        return norm

    def _too_many(self, bad: Sequence[str]) -> str:
        shown = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        return (
            f"{self._progress.skipped} steps had a loss or a gradient that is not finite, the last one step "
            f"{self._progress.step} with {shown}; the newest checkpoint is that of step "
            f"{self._checkpoints.newest() or 0}"
        )

    # Between steps

    def _pause(self, planned: Planned, begun: Begun) -> bool:
        """Validates and saves where it is time for it; whether it validated."""
        course, step, ends = self._course, planned.step, planned.step == begun.max_steps
        every = planned.ends_epoch if course.eval_steps is None else step % course.eval_steps == 0
        validates = ends or every
        if not validates and (course.save_steps is None or step % course.save_steps):
            return False
        if validates:
            with self._keeper.averaged():
                metrics = dict(self._validate())
            metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}
            if metrics:
                self._progress.measured.append({"step": step, **metrics})
                self._watcher.measured(step, metrics)
        self._watcher.saving(step)
        self._group.wait()  # until what each of them was told is safe
        snapshot = self._keeper.snapshot(self._progress)
        self._group.lead(lambda: self._save(snapshot))  # nobody goes on before it is safe
        return validates

    def _save(self, snapshot: Snapshot) -> None:
        self._checkpoints.save(snapshot)
        self._checkpoints.prune(self._course.kept)

    def _no_longer_better(self) -> bool:
        """Whether the last validations, as many as patience has, were no better than the best before them."""
        kept, patience = self._course.kept, self._course.patience
        if kept.metric is None or patience is None:
            return False
        found = [measured[kept.metric] for measured in self._progress.measured if kept.metric in measured]
        found = [-value for value in found] if kept.higher else found
        return len(found) > patience and min(found[-patience:]) >= min(found[:-patience])


def _number(value: Tensor) -> float:
    return float(value.full_tensor() if isinstance(value, DTensor) else value)
