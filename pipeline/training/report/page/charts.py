"""Curves of a run, from its events: few enough points for a page, however many steps there were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.training.report.events import STEP, VALID, Event
from pipeline.training.report.scores import LOSS, metric_name

_POINTS = 240  # of a curve; each is the mean of the steps around it
_LOG_SPAN = 20  # values that differ by more than this factor are drawn on a logarithmic axis
Curve = tuple[list[float], list[float]]  # steps, and the values that came there
_NOT_DRAWN = {"frames", "seconds"}  # of each step: their quotient is
_FAILURES = {"failed", "zeroed"}
_NOT_SHARES = {"codes_used", "zeroed"}  # of the numbers that tasks have; others are shown in percent


@dataclass(frozen=True)
class Series:
    """A curve; `low` and `high` are the extremes of what a point is the mean of."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """Curves over one axis.

    Attributes:
        percent: values are shares, shown as percentages.
        log: the axis is logarithmic.
    """

    title: str
    series: list[Series]
    percent: bool = False
    log: bool = False
    x_title: str = "step"


@dataclass(frozen=True)
class Curves:
    """All numbers of a run by tag, with the steps at which they came."""

    steps: Mapping[str, Curve]
    valid: Mapping[str, Curve]

    @classmethod
    def of(cls, events: Iterable[Event]) -> Curves:
        found: dict[str, dict[str, Curve]] = {STEP: {}, VALID: {}}
        for event in events:
            for tag, value in event.items():
                if event["kind"] in found and tag not in ("kind", "step", "epoch") and value is not None:
                    x, y = found[event["kind"]].setdefault(tag, ([], []))
                    x.append(event["step"])
                    y.append(value)
        return cls(found[STEP], found[VALID])

    def losses(self) -> list[Chart]:
        """The loss of each task, in training and in validation."""
        tags = dict.fromkeys(tag for tag in (*self.steps, *self.valid) if _name(tag) == LOSS)
        charts = []
        for tag in tags:
            series = [
                *_binned("training", self.steps.get(tag)),
                *_whole("validation", self.valid.get(tag)),
            ]
            charts.append(_chart(tag.partition("/")[0], series, log=True))
        return charts

    def quality(self) -> list[Chart]:
        """What validations measured: a chart of each task's shares, and one of each number beside them."""
        return _by_task({tag: _whole(_words(tag), values) for tag, values in self.valid.items()})

    def course(self) -> list[Chart]:
        """How the steps went: rate, gradients and speed, and what tasks say of themselves."""
        curves = {
            tag: _binned(_words(tag), values) for tag, values in self.steps.items() if tag not in _NOT_DRAWN
        }
        charts = [
            _chart(_words(tag), series, log=tag == "gradient_norm")
            for tag, series in curves.items()
            if "/" not in tag
        ]
        return charts + _by_task({tag: series for tag, series in curves.items() if "/" in tag})


def histogram(title: str, groups: Mapping[str, Sequence[float]], x_title: str) -> Chart:
    """How values of several groups are spread: shares of each group, from -1 to 1."""
    edges = np.linspace(-1, 1, 61)
    middles = ((edges[1:] + edges[:-1]) / 2).round(4).tolist()
    series = []
    for name, values in groups.items():
        counts, _ = np.histogram(values, edges)
        series.append(Series(name, middles, (counts / max(len(values), 1)).round(5).tolist()))
    return Chart(title, series, percent=True, x_title=x_title)


def _by_task(curves: Mapping[str, list[Series]]) -> list[Chart]:
    """All but the losses, and what is well where it is zero."""
    shares: dict[str, list[Series]] = {}
    others = []
    for tag, series in curves.items():
        task, name = tag.partition("/")[0], _name(tag)
        if name == LOSS or (name in _FAILURES and not any(value for one in series for value in one.y)):
            continue
        if name in _NOT_SHARES:
            others.append(Chart(f"{task}: {_words(tag)}", series))
        else:
            shares.setdefault(task, []).extend(series)
    charts = []
    for task, series in shares.items():
        title = f"{task}: {series[0].name}" if len(series) == 1 else task
        charts.append(Chart(title, series, percent=True))
    return charts + others


def _chart(title: str, series: list[Series], *, log: bool) -> Chart:
    """`log`: with a logarithmic axis, if there are values of several sizes."""
    values = [value for one in series for value in one.y]
    return Chart(title, series, log=log and 0 < _LOG_SPAN * min(values) < max(values))


def _whole(name: str, values: Curve | None) -> list[Series]:
    return [Series(name, *values)] if values else []


def _binned(name: str, values: Curve | None) -> list[Series]:
    """Few points for many steps: means of neighbours, with the lowest and the highest of them."""
    if not values:
        return []
    x, y = (np.array(side, np.float64) for side in values)
    starts = np.unique(np.linspace(0, len(x), min(_POINTS, len(x)), endpoint=False).astype(int))
    counts = np.diff(starts, append=len(x))
    return [
        Series(
            name,
            (np.add.reduceat(x, starts) / counts).round(1).tolist(),
            _short(np.add.reduceat(y, starts) / counts),
            _short(np.minimum.reduceat(y, starts)),
            _short(np.maximum.reduceat(y, starts)),
        )
    ]


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _words(tag: str) -> str:
    """What follows the task, as people read it."""
    name = _name(tag)
    known = {
        "frames_per_s": "frames a second",
        "waited_s": "seconds waited for data",
        "blank": "blank frames",
        "most_frequent": "accuracy of the most frequent code",
        "zeroed": "clips of infinite loss",
    }
    return known.get(name, metric_name(name))


def _name(tag: str) -> str:
    return tag.rpartition("/")[2]
