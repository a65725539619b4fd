"""One line that says how far a run is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple

from pipeline.reports.progress import duration
from pipeline.training.report.scores import format_metric

_TIMED_STEPS = 50


class Step(NamedTuple):
    """What came of a step.

    Attributes:
        losses: by task.
        frames: of the encoder, on all workers.
    """

    step: int
    epoch: int
    losses: Mapping[str, float]
    learning_rate: float
    frames: float
    seconds: float


class Progress:
    """Says how far a run is.

    Args:
        max_steps: of the whole run.
        frame_s: seconds of audio in a frame.
    """

    def __init__(self, max_steps: int, frame_s: float) -> None:
        self._max_steps, self._frame_s = max_steps, frame_s
        self._last: Step | None = None
        self._seconds: deque[float] = deque(maxlen=_TIMED_STEPS)
        self._frames: deque[float] = deque(maxlen=_TIMED_STEPS)
        self._validation = ""

    def step(self, step: Step) -> None:
        self._last = step
        self._seconds.append(step.seconds)
        self._frames.append(step.frames)

    @property
    def done(self) -> int:
        """Steps."""
        return 0 if self._last is None else self._last.step

    @property
    def share(self) -> float:
        """Of the steps."""
        return min(1.0, self.done / self._max_steps)

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes what decides, by "task/metric", to be shown from now on."""
        values = ", ".join(
            f"{name.replace('/', ' ')} {format_metric(name, value, 1)}" for name, value in metrics.items()
        )
        self._validation = f"{values} at step {step:,}" if values else ""

    def facts(self) -> dict[str, Any]:
        """For a program."""
        facts = {} if self._last is None else self._last._asdict()
        return {**facts, "max_steps": self._max_steps}

    def line(self) -> str:
        """For a person; the speed and what is left follow from the last steps."""
        step = self._last
        if step is None:
            return f"step 0/{self._max_steps:,}"
        seconds = sum(self._seconds) or float("inf")
        speed = sum(self._frames) / seconds
        left_s = median(self._seconds) * max(self._max_steps - step.step, 0)
        parts = [
            f"step {step.step:,}/{self._max_steps:,}",
            f"epoch {step.epoch}",
            *(f"{task} {loss:.4g}" for task, loss in step.losses.items()),
            f"lr {step.learning_rate:.2e}",
            f"{speed:,.0f} frames/s, {speed * self._frame_s:,.0f} x real time",
            f"{duration(left_s)} left",
            *filter(None, [self._validation]),
        ]
        return " | ".join(parts)


Show = Callable[[Progress], None]
