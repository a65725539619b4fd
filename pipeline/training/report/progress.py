"""One line that says how far a run is: rewritten in a terminal, now and then a new one elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import NamedTuple, TextIO

from pipeline.training.report.scores import format_metric

_TIMED_STEPS = 50
_EVERY_S = 30.0  # where each line stays


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

    def __init__(self, max_steps: int, frame_s: float, stream: TextIO | None = None) -> None:
        self._max_steps, self._frame_s = max_steps, frame_s
        self._stream = sys.stderr if stream is None else stream
        self._seconds: deque[float] = deque(maxlen=_TIMED_STEPS)
        self._frames: deque[float] = deque(maxlen=_TIMED_STEPS)
        self._validation = ""
        self._silent_s = float("inf")
        self._width = 0

    def step(self, step: Step) -> None:
        self._seconds.append(step.seconds)
        self._frames.append(step.frames)
        self._silent_s += step.seconds
        if self._stream.isatty():
            self._rewrite(self.line(step))
        elif self._silent_s >= _EVERY_S or step.step >= self._max_steps:
            self._silent_s = 0.0
            print(self.line(step), file=self._stream, flush=True)

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes what decides, by "task/metric", to be shown from now on."""
        values = ", ".join(
            f"{name.replace('/', ' ')} {format_metric(name, value, 1)}" for name, value in metrics.items()
        )
        self._validation = f"{values} at step {step:,}" if values else ""

    def close(self) -> None:
        """Leaves the last line where it is."""
        if self._width:
            print(file=self._stream, flush=True)
            self._width = 0

    def line(self, step: Step) -> str:
        """The line after this step; the speed and what is left follow from the last steps."""
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

    def _rewrite(self, line: str) -> None:
        """Over what stands there, so wide as the terminal is."""
        columns = shutil.get_terminal_size().columns - 1
        line = line if len(line) <= columns else line[: columns - 1] + "…"
        print(f"\r{line:<{self._width}}", end="", file=self._stream, flush=True)
        self._width = len(line)


def duration(seconds: float) -> str:
    """As a person says it: "40 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
