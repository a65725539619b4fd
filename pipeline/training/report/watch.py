"""Reports of a run: losses by clip on each worker; events and progress on the leading one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipeline.storage import Storage, join
from pipeline.training.loop.course import StepReport
from pipeline.training.report.events import NOT_FINITE, Events
from pipeline.training.report.losses import TRAIN, VALID, ClipLoss, LossLog, drop_beyond
from pipeline.training.report.progress import Step
from pipeline.training.report.scores import LOSS, main_metric, means

PARTS = "losses"  # the folder of the parts of `losses.parquet`
STEPPED, MEASURED = "stepped", "measured"


class Watch:
    """One worker's `Watcher`.

    Args:
        output: of the run.
        rank: of the worker; 0 leads.
        learning_rate: the highest; a step has a share of it.
        tell: tells the driver; (`STEPPED`, `Step`), or (`MEASURED`, (step, metrics that decide)).
    """

    def __init__(
        self,
        output: str,
        storage: Storage,
        rank: int,
        learning_rate: float,
        tell: Callable[[str, Any], None],
    ) -> None:
        self._output, self._storage, self._rank = output, storage, rank
        self._learning_rate, self._tell = learning_rate, tell
        self._losses: LossLog | None = None
        self._events: Events | None = None
        self._step = self._epoch = 0
        self._unusable: set[str] = set()

    def resumed(self, step: int) -> None:
        parts = join(self._output, PARTS)
        if self._rank == 0:
            drop_beyond(parts, step, self._storage)
            self._events = Events(self._output, self._storage, step)
        self._losses = LossLog(parts, self._storage, self._rank, step)
        self._step = step

    def step(self, report: StepReport) -> None:
        self._step, self._epoch = report.step, report.epoch
        self._log(report.sums.clips, TRAIN)
        if self._events is None:
            return
        scalars = scalars_of(report, self._learning_rate)
        self._events.step(report.step, report.epoch, scalars)
        if report.bad:
            what = "loss" if report.learned else "gradient"
            self._events.skipped(report.step, report.bad, f"the {what} is not finite")
        self.unusable(report.unusable)
        losses = {
            tag.partition("/")[0]: value for tag, value in scalars.items() if tag.rpartition("/")[2] == LOSS
        }
        rate, frames = scalars["learning_rate"], scalars["frames"]
        self._tell(STEPPED, Step(report.step, report.epoch, losses, rate, frames, report.seconds))

    def validated(self, losses: Iterable[ClipLoss]) -> None:
        """Takes losses of validation clips, as this worker's `Evaluator` finds them."""
        self._log(losses, VALID)

    def unusable(self, clip_ids: Sequence[str]) -> None:
        """Takes the ids of clips whose stored features are not finite, those of all workers."""
        new = [clip_id for clip_id in dict.fromkeys(clip_ids) if clip_id not in self._unusable]
        self._unusable.update(new)
        if new and self._events is not None:
            self._events.skipped(self._step, new, NOT_FINITE)

    def measured(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._events is not None:
            self._events.validated(step, metrics)
            decide = dict.fromkeys(main_metric(tag.partition("/")[0]) for tag in metrics)
            self._tell(MEASURED, (step, {tag: metrics[tag] for tag in decide if tag in metrics}))

    def saving(self, step: int) -> None:
        assert self._losses is not None
        self._losses.flush(step)
        if self._events is not None:
            self._events.sync()

    def close(self) -> None:
        if self._events is not None:
            self._events.close()

    def _log(self, losses: Iterable[ClipLoss], split: str) -> None:
        assert self._losses is not None  # `resumed` comes first
        self._losses.add(self._step, self._epoch, losses, split)


def scalars_of(report: StepReport, learning_rate: float) -> dict[str, float]:
    """What a step is remembered by: "transcribe/loss" and the other means of each task, and its course.

    Args:
        learning_rate: the highest.
    """
    sums = {name.replace(".", "/", 1): value for name, value in report.numbers.items() if "." in name}
    counts = {name.removesuffix("/count"): value for name, value in sums.items() if name.endswith("/count")}
    facts = {name: value for name, value in sums.items() if not name.endswith(("/count", "/total"))}
    losses = {f"{task}/{LOSS}": sums[f"{task}/total"] / count for task, count in counts.items() if count}
    frames = report.numbers.get("frames", 0.0)
    course = {
        "learning_rate": learning_rate * report.rate,
        "gradient_norm": report.grad_norm,
        "frames_per_s": frames / report.seconds if report.seconds else 0.0,
        "waited_s": report.waited_s,
        "frames": frames,
        "seconds": report.seconds,
    }
    return {**losses, **means(facts, counts), **course}
