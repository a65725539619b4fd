"""`training.html`: a run on one page, which needs no server and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from pipeline import html
from pipeline.html import Tile
from pipeline.reports.progress import duration
from pipeline.storage import Storage
from pipeline.training.report.events import SKIPPED, STEP, VALID, Event
from pipeline.training.report.losses import HardClips
from pipeline.training.report.page.charts import Curves
from pipeline.training.report.page.examples import Examples
from pipeline.training.report.page.pictures import MaskedExample, spectrogram
from pipeline.training.report.scores import (
    Scored,
    format_metric,
    higher_is_better,
    main_metric,
    metric_name,
)

_HERE = Path(__file__).parent
_NAMED = 20  # clips of each reason; all are counted


class UnusableClip(NamedTuple):
    """A clip that nothing can be learned from, and why: `reason` is one of few, `detail` the particulars."""

    clip_id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Page:
    """What a page tells.

    Attributes:
        title: of the run.
        facts: (name, value) about it, such as its command; the first stands below the title too.
        max_steps: of the whole run.
        frame_s: seconds of audio in a frame.
        clips: validation clips, by task, as the best model reads them.
        texts: what clips of `hard` are, by clip id, as far as it is known.
        masked: a training clip with its masks.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    events: Sequence[Event]
    max_steps: int
    frame_s: float
    clips: Mapping[str, Sequence[Scored]] = field(default_factory=dict)
    hard: HardClips = field(default_factory=lambda: HardClips([], []))
    texts: Mapping[str, str] = field(default_factory=dict)
    unusable: Sequence[UnusableClip] = ()
    masked: MaskedExample | None = None


class Reason(NamedTuple):
    """Why clips are not learned from: how many, and the first of them."""

    name: str
    clips: int
    named: list[UnusableClip]


def write_page(page: Page, uri: str, storage: Storage) -> None:
    storage.write_bytes(uri, render(page, storage).encode())


def render(page: Page, storage: Storage) -> str:
    """The HTML, without any of the storage's credentials."""
    curves = Curves.of(page.events)
    examples = Examples.of(page.clips)
    sections = {
        "losses": curves.losses(),
        "quality": curves.quality(),
        "voices": examples.voices,
        "course": curves.course(),
    }
    return html.render(
        _HERE,
        storage,
        page=page,
        tiles=(_best(page.events), _course(page)),
        charts={name: [asdict(chart) for chart in charts] for name, charts in sections.items()},
        examples=examples,
        masked=None if page.masked is None else spectrogram(page.masked, page.frame_s),
        reasons=_reasons(page),
    )


def _course(page: Page) -> list[Tile]:
    """How far the run is, and how fast."""
    steps = [event for event in page.events if event["kind"] == STEP]
    tiles = []
    if steps:
        last = steps[-1]
        note = f"of {page.max_steps:,}, epoch {last['epoch']}"
        tiles.append(Tile("steps", f"{last['step']:,}", note))
        seconds = sum(step.get("seconds", 0.0) for step in steps)
        frames = sum(step.get("frames", 0.0) for step in steps)
        waited = sum(step.get("waited_s", 0.0) for step in steps)
        if seconds:
            heard = frames * page.frame_s
            tiles.append(Tile("audio heard", f"{heard / 3600:,.3g} h", f"in {duration(seconds)}"))
            tiles.append(Tile("speed", f"{heard / seconds:,.0f} ×", "real time"))
            tiles.append(Tile("waiting for data", f"{waited / seconds:.1%}", "of the time"))
    left_out = sum(len(event["clip_ids"]) for event in page.events if event["kind"] == SKIPPED)
    note = (
        f"and {left_out:,} in batches left out" if left_out else "for the reasons below" * bool(page.unusable)
    )
    tiles.append(Tile("clips not used", f"{len(page.unusable):,}", note))
    return tiles


def _best(events: Sequence[Event]) -> list[Tile]:
    """The best that each task has reached, by the metric that decides."""
    validations = [event for event in events if event["kind"] == VALID]
    tasks = dict.fromkeys(tag.partition("/")[0] for event in validations for tag in event if "/" in tag)
    tiles = []
    for task in tasks:
        metric = main_metric(task)
        measured = [(event[metric], event["step"]) for event in validations if event.get(metric) is not None]
        if measured:
            choose = max if higher_is_better(metric) else min
            value, step = choose(measured, key=lambda pair: pair[0])
            shown = format_metric(metric, value, 1)
            tiles.append(Tile(f"{task} {metric_name(metric)}", shown, f"best, at step {step:,}"))
    return tiles


def _reasons(page: Page) -> list[Reason]:
    """The most frequent first."""
    clips = [*page.unusable]
    for event in page.events:
        if event["kind"] == SKIPPED:
            clips += [
                UnusableClip(clip_id, event["reason"], f"step {event['step']:,}")
                for clip_id in event["clip_ids"]
            ]
    by_reason: dict[str, list[UnusableClip]] = {}
    for clip in clips:
        by_reason.setdefault(clip.reason, []).append(clip)
    found = [Reason(reason, len(held), held[:_NAMED]) for reason, held in by_reason.items()]
    return sorted(found, key=lambda reason: (-reason.clips, reason.name))
