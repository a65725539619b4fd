"""What a run did: sums over its rows and facts about the run; typed, made JSON and text at the edge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

from pipeline.errors import Code
from pipeline.metrics.base import Metric
from pipeline.storage import Storage
from pipeline.table.reader import read_batches

_COLUMNS = ("duration_s", "error", "encoder_s")
_BATCH_ROWS = 65_536  # summed at once
_NAMED = 5  # undelivered shards


@dataclass
class Tally:
    """Sums over output rows that add up, whatever the order.

    Attributes:
        metrics: of the annotations, by task; those of tasks that a job does not run stay empty.
        seconds: of annotated audio.
    """

    metrics: dict[str, Metric]
    clips: int = 0
    annotated: int = 0
    seconds: float = 0.0
    encoder_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        self.clips += other.clips
        self.annotated += other.annotated
        self.seconds += other.seconds
        self.encoder_s += other.encoder_s
        self.errors += other.errors
        for task, metric in self.metrics.items():
            metric.add(other.metrics[task])

    def add_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        good = [row for row in rows if row["error"] is None]
        self.clips += len(rows)
        self.annotated += len(good)
        self.seconds += sum(row["duration_s"] or 0.0 for row in good)
        self.encoder_s += sum(row["encoder_s"] or 0.0 for row in good)
        self.errors.update(row["error"]["code"] for row in rows if row["error"] is not None)
        for metric in self.metrics.values():
            metric.add_rows(good)

    def counts(self) -> dict[str, Any]:
        """What there is how much of, for JSON."""
        return {
            "clips": self.clips,
            "annotated": self.annotated,
            "hours": self.seconds / 3600,
            "encoder_s": self.encoder_s,
            "errors": dict(self.errors.most_common()),
        }

    def rates(self) -> dict[str, Any]:
        """How good it is, for JSON."""
        facts = (metric.facts() for metric in self.metrics.values())
        return {
            "error_rate": self.error_rate,
            **{name: value for found in facts for name, value in found.items()},
        }

    @property
    def error_rate(self) -> float:
        return sum(self.errors.values()) / self.clips if self.clips else 0.0


def tally_file(uri: str, storage: Storage, metrics: Mapping[str, Metric]) -> Tally:
    """Sums one output file, reading only the columns that count.

    Args:
        metrics: without rows; they stay so.
    """
    total = Tally(deepcopy(dict(metrics)))
    wanted = {*_COLUMNS, *(name for metric in metrics.values() for name in metric.columns)}
    for batch in read_batches(uri, storage, sorted(wanted), rows=_BATCH_ROWS):
        total.add_rows(batch.to_pylist())
    return total


@dataclass(frozen=True)
class EncoderUse:
    """How often the encoder ran, None where nobody counted, which annotations each backbone served, and in
    which arithmetic."""

    passes: int | None
    frames: int | None
    backbones: list[list[str]]
    dtype: str = "float32"


@dataclass(frozen=True)
class RunSummary:
    """A finished run: what the start that finished it did, and beside it what was done before.

    Attributes:
        tally: the rows that this start wrote; all counts and times are its own.
        before: the rows that earlier starts of the same run wrote, which did not finish it.
        shards_skipped: finished before, and not read again.
        undelivered: shards that storage did not deliver, and why; the next run reads them again.
        spec: as it stands in the table's metadata.
        stage_s: seconds that all tasks of each stage worked. This, `models` and `encoder` are None where
            nothing was new.
        models: what made each annotation: name and digests of its checkpoint.
        encoder: None too where none runs.
        work_s: seconds from the start of the stages to the last row written; None where nothing was new.
    """

    run_id: str
    output: str
    tally: Tally
    before: Tally
    shards_read: int
    shards_skipped: int
    wall_s: float
    spec: Mapping[str, Any]
    stage_s: Mapping[str, float] | None = None
    models: Mapping[str, Mapping[str, Any]] | None = None
    encoder: EncoderUse | None = None
    undelivered: Mapping[str, str] = field(default_factory=dict)
    work_s: float | None = None

    @property
    def complete(self) -> bool:
        """Whether storage delivered all that was asked of it."""
        return not self.undelivered and not self.tally.errors[Code.UNREADABLE]

    @property
    def rtfx(self) -> float | None:
        """Seconds of audio per second of wall time; None where there was nothing to do."""
        return self.tally.seconds / self.wall_s if self.tally.clips and self.wall_s else None

    @property
    def rtfx_work(self) -> float | None:
        """The same per second in which the stages worked: without the checks before and the sums after."""
        return self.tally.seconds / self.work_s if self.tally.clips and self.work_s else None

    @cached_property
    def whole(self) -> Tally:
        """All rows of the run: rates are theirs."""
        total = deepcopy(self.before)
        total.add(self.tally)
        return total

    def as_json(self) -> dict[str, Any]:
        """As it stands in the table's log."""
        facts: dict[str, Any] = {
            "run_id": self.run_id,
            "output": self.output,
            "shards_read": self.shards_read,
            "shards_skipped": self.shards_skipped,
            "shards_undelivered": dict(self.undelivered),
            "clips_done_before": self.before.clips,
            "hours_done_before": self.before.seconds / 3600,
            "errors_done_before": dict(self.before.errors.most_common()),
            "wall_s": self.wall_s,
            "work_s": self.work_s,
            "rtfx": self.rtfx,
            "rtfx_work": self.rtfx_work,
            "spec": dict(self.spec),
        }
        if self.stage_s is not None or self.encoder is not None:
            facts["stage_s"] = dict(self.stage_s or {})
            facts["models"] = self.models
        if self.encoder is not None:
            facts["encoder"] = vars(self.encoder)
        return {**facts, **self.tally.counts(), **self.whole.rates()}


def interrupted_json(run_id: str, output: str, tally: Tally) -> dict[str, Any]:
    """The summary of a run that was killed, of which nothing is left to do."""
    facts = {"run_id": run_id, "output": output, "killed_before_summary": True}
    return {**facts, **tally.counts(), **tally.rates()}


def format_summary(summary: RunSummary) -> str:
    """The summary as a person reads it at the end of a run."""
    tally, before = summary.tally, summary.before
    lines = [
        ("clips", f"{tally.clips} ({tally.annotated} annotated)"),
        ("audio", format_hours(tally.seconds / 3600)),
        ("errors", _format_errors(tally)),
        ("shards", f"{summary.shards_read} read, {summary.shards_skipped} finished before and skipped"),
        *_undelivered_lines(summary.undelivered),
        ("wall time", f"{summary.wall_s:.1f} s"),
    ]
    if before.clips:
        done = (
            f"{before.clips} clips more ({before.annotated} annotated), {format_hours(before.seconds / 3600)}"
        )
        lines[3:3] = [
            ("done before", f"{done}; errors: {_format_errors(before)}"),
            ("", "written by starts of this run that did not finish it"),
        ]
    if summary.rtfx is not None:
        lines += _rtfx_lines(summary)
    lines += [("", f"{seconds:.1f} s in {stage}") for stage, seconds in (summary.stage_s or {}).items()]
    if summary.encoder is not None:
        lines += [("encoder", _format_encoder(summary.encoder)), ("dtype", summary.encoder.dtype)]
    rates = [line for metric in summary.whole.metrics.values() for line in metric.lines()]
    if rates and before.clips:
        rates.append(("", "of all clips of the run, those done before too"))
    lines += rates
    lines.append(("output", summary.output))
    return format_lines(lines)


def _rtfx_lines(summary: RunSummary) -> list[tuple[str, str]]:
    whole = f"{summary.rtfx:.1f} over the whole wall time"
    if summary.rtfx_work is None:
        return [("RTFx", f"{whole} (seconds of audio per second)")]
    work = f"{summary.rtfx_work:.1f} over the {summary.work_s:.1f} s of work (seconds of audio per second)"
    return [("RTFx", work), ("", whole)]


def _undelivered_lines(shards: Mapping[str, str]) -> list[tuple[str, str]]:
    if not shards:
        return []
    told = [("", f"{shard}: {why}") for shard, why in islice(shards.items(), _NAMED)]
    more = [("", f"… and {len(shards) - _NAMED} more")] if len(shards) > _NAMED else []
    return [("", f"{len(shards)} not delivered by storage, to be read by the next run:"), *told, *more]


def format_lines(lines: Iterable[tuple[str, str]], width: int = 12) -> str:
    """(name, value) below each other in two columns, the first `width` wide."""
    return "\n".join(f"{name:<{width}}{value}" for name, value in lines)


def format_hours(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def _format_errors(tally: Tally) -> str:
    return ", ".join(f"{code} {count}" for code, count in tally.errors.most_common()) or "none"


def _format_encoder(encoder: EncoderUse) -> str:
    shared = "; ".join(f"one for {', '.join(tasks)}" for tasks in encoder.backbones)
    if encoder.passes is None:
        return f"passes not counted, their counter died ({shared})"
    return f"{encoder.passes} passes over {encoder.frames} frames ({shared})"
