"""`--plan`: what there is to learn from, in how many steps, and how long these take; nothing is trained."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from pipeline.reports.progress import duration
from pipeline.reports.summary import format_lines
from pipeline.storage import join
from pipeline.training.batches.batch import Pack
from pipeline.training.batches.order import Order, costs
from pipeline.training.examples.building import Built
from pipeline.training.examples.index import Index
from pipeline.training.examples.statistics import Statistics
from pipeline.training.group import Group
from pipeline.training.instructions import training_of
from pipeline.training.loop.step import Draw, Gradients
from pipeline.training.loop.worker import Training, reader_of
from pipeline.training.loop.workers import Workers, workers_of
from pipeline.training.settle import Job

_WIDTH = 15
_LISTED = 3  # clips that cannot be used, for each reason
_LONGEST_DETAIL = 80
_TIMED_PACKS = 3
_TIMED_FRAMES = 1000  # of each: a large model takes seconds for so many on CPUs
_ENOUGH_S = 20.0


@dataclass(frozen=True)
class Unusable:
    """Clips that cannot be used for one reason, by `task` or at all: how many; some with their details."""

    task: str | None
    reason: str
    rows: int
    clips: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class TrainingPlan:
    """What a run would do.

    Attributes:
        found: in the training clips.
        validation: see `Job`.
        budget: frames of a pack.
        packs: of an epoch.
        packs_per_step: of all workers.
        steps: of the run; None where its minutes decide.
        epoch_s: an estimate in seconds, None where nothing here tells; `basis` says how it is known.
    """

    output: str
    found: Statistics
    unusable: Sequence[Unusable]
    validation: str | None
    budget: int
    packs: int
    packs_per_step: int
    steps: int | None
    epoch_s: float | None
    basis: str

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.packs // self.packs_per_step)

    def as_json(self) -> dict[str, Any]:
        held = {"found": self.found.facts(), "unusable": [asdict(each) for each in self.unusable]}
        return vars(self) | held | {"steps_per_epoch": self.steps_per_epoch}


def plan_of(job: Job) -> TrainingPlan:
    """What a run would do on the cluster that is joined; a few packs are computed here, and forgotten."""
    workers = workers_of(job.spec.cluster, job.spec.run.max_failures)
    training = training_of(job, None, workers)
    index, data, course = job.labelled.train.index, training.data, training.course
    order = Order(index.frames, index.file, data.budget, course.seed, data.window_frames)
    epoch_s, basis = _time(training, index, order, workers)
    return TrainingPlan(
        output=job.output,
        found=job.statistics,
        unusable=list(_unusable(job.labelled.train)),
        validation=job.validation,
        budget=data.budget,
        packs=len(order),
        packs_per_step=course.packs_per_step,
        steps=course.length(order.steps(course.packs_per_step).per_epoch),
        epoch_s=epoch_s,
        basis=basis,
    )


def format_plan(plan: TrainingPlan) -> str:
    """The plan as a person reads it."""
    found = plan.found.lines()
    lines = [line for line in found if line[0] not in ("skipped", "hint")]  # listed below; said last
    none = "none: the last checkpoint is taken, not the best (--valid, --valid-share)"
    lines.insert(1, ("validation", plan.validation or none))
    lines.append(("packs", f"{plan.packs:,} an epoch, of at most {plan.budget:,} frames"))
    steps = f"{plan.steps_per_epoch:,} an epoch, of {plan.packs_per_step} pack(s)"
    if plan.steps is not None:
        steps += f"; {plan.steps:,} in all, {plan.steps / plan.steps_per_epoch:.3g} epochs"
    lines.append(("steps", steps))
    if plan.epoch_s is None:
        lines.append(("time", "?"))
    else:
        spent = f"about {duration(plan.epoch_s)} an epoch"
        if plan.steps is not None:
            spent += f", {duration(plan.epoch_s * plan.steps / plan.steps_per_epoch)} in all"
        lines.append(("time", f"{spent}, without validation"))
    lines.append(("", plan.basis))
    lines += [line for line in found if line[0] == "hint"]
    text = format_lines(lines, _WIDTH)
    return "\n".join([text, *_unusable_lines(plan)])


def _unusable_lines(plan: TrainingPlan) -> Iterator[str]:
    if not plan.unusable:
        return
    yield ""
    yield f"not learned from (all of them: {join(plan.output, 'data/skipped.parquet')} once the run begins)"
    for why in plan.unusable:
        yield f"{why.rows:,} {why.reason}{f' ({why.task})' if why.task else ''}"
        yield from (f"  {clip_id}  {detail}".rstrip() for clip_id, detail in why.clips)
        if why.rows > len(why.clips):
            yield f"  … and {why.rows - len(why.clips):,} more"


def _unusable(built: Built) -> Iterator[Unusable]:
    found: dict[tuple[str | None, str], list[tuple[str, str]]] = {}
    for row in built.skipped.select(["clip_id", "task", "reason", "detail"]).to_pylist():
        detail = " ".join((row["detail"] or "").split())
        short = detail if len(detail) <= _LONGEST_DETAIL else f"{detail[: _LONGEST_DETAIL - 1]}…"
        found.setdefault((row["task"], row["reason"]), []).append((row["clip_id"], short))
    for (task, reason), clips in sorted(found.items(), key=lambda item: -len(item[1])):
        yield Unusable(task, reason, len(clips), clips[:_LISTED])


def _time(training: Training, index: Index, order: Order, workers: Workers) -> tuple[float | None, str]:
    """Seconds of an epoch, by those of a few packs, and how that is known."""
    if workers.gpus:
        return None, "GPUs are not tried for a plan: the first steps of the run tell"
    threads = torch.get_num_threads()
    torch.set_num_threads(workers.cpus)
    try:
        packs, cost_s = _seconds_per_cost(training, index, order)
    finally:
        torch.set_num_threads(threads)
    each = training.course.packs_per_step // workers.most
    seconds = cost_s * float(costs(index.frames).sum()) * each / training.course.packs_per_step
    several = f", shared by {workers.most} workers" if workers.most > 1 else ""
    return seconds, f"from {packs} packs, timed here on {workers.cpus} thread(s){several}"


def _seconds_per_cost(training: Training, index: Index, order: Order) -> tuple[int, float]:
    """How many packs were computed, and their seconds by what `costs` says of them."""
    learner, _ = training.model.build()
    if training.gradient_checkpointing:
        learner.encoder.gradient_checkpointing_enable()
    gradients = Gradients(learner, Group())
    draw = Draw(training.course.weights, autocast=training.course.autocast)
    packs = order.packs(0)
    some = [_begin_of(pack, index) for pack in packs[:: max(1, len(packs) // _TIMED_PACKS)][:_TIMED_PACKS]]
    reader = reader_of(training, index, augmented=True)
    gradients.of([reader.batch(some[0])], draw)  # what is slow once
    timed, seconds, cost = 0, 0.0, 0
    for pack in some:
        started = time.perf_counter()
        gradients.of([reader.batch(pack)], draw)
        seconds += time.perf_counter() - started
        timed, cost = timed + 1, cost + int(costs(index.frames[pack.examples]).sum())
        if seconds > _ENOUGH_S:
            break
    return timed, seconds / cost


def _begin_of(pack: Pack, index: Index) -> Pack:
    """Its first clips."""
    ends = np.cumsum(index.frames[pack.examples])
    return pack._replace(examples=pack.examples[: max(1, int((ends <= _TIMED_FRAMES).sum()))])
