"""What a run did: sums over its rows and facts about the run; typed, made JSON and text at the edge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from pipeline.metrics.base import Metric
from pipeline.storage import Storage
from pipeline.table.reader import read_batches

_COLUMNS = ("duration_s", "error", "encoder_s")
_BATCH_ROWS = 65_536  # summed at once


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

    @property
    def error_rate(self) -> float:
        return sum(self.errors.values()) / self.clips if self.clips else 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "clips": self.clips,
            "annotated": self.annotated,
            "hours": self.seconds / 3600,
            "encoder_s": self.encoder_s,
            "errors": dict(self.errors.most_common()),
            "error_rate": self.error_rate,
            **{name: value for metric in self.metrics.values() for name, value in metric.facts().items()},
        }


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
    """How often the encoder ran, None where nobody counted, and which annotations each backbone served."""

    passes: int | None
    frames: int | None
    backbones: list[list[str]]


@dataclass(frozen=True)
class RunSummary:
    """A finished run.

    Attributes:
        shards_skipped: finished before, and not read again.
        clips_done_before: clips of the shards read that had rows when this start began.
        rtfx: seconds of audio per second of wall time; None for a run that went on after a kill.
        spec: as it stands in the table's metadata.
        stage_s: seconds that all tasks of each stage worked. This, `models` and `encoder` are None where
            nothing was new.
        models: name and digests of each annotation's checkpoint.
    """

    run_id: str
    output: str
    tally: Tally
    shards_read: int
    shards_skipped: int
    clips_done_before: int
    wall_s: float
    spec: Mapping[str, Any]
    rtfx: float | None = None
    stage_s: Mapping[str, float] | None = None
    models: Mapping[str, Mapping[str, str]] | None = None
    encoder: EncoderUse | None = None

    def as_json(self) -> dict[str, Any]:
        """As it stands in `_run/` beside the output."""
        facts: dict[str, Any] = {
            "run_id": self.run_id,
            "output": self.output,
            "shards_read": self.shards_read,
            "shards_skipped": self.shards_skipped,
            "clips_done_before": self.clips_done_before,
            "wall_s": self.wall_s,
            "rtfx": self.rtfx,
            "spec": dict(self.spec),
        }
        if self.encoder is not None:
            facts["stage_s"] = dict(self.stage_s or {})
            facts["models"] = self.models
            facts["encoder"] = vars(self.encoder)
        return {**facts, **self.tally.as_json()}


def interrupted_json(run_id: str, output: str, tally: Tally) -> dict[str, Any]:
    """The summary of a run that was killed, of which nothing is left to do."""
    return {"run_id": run_id, "output": output, "killed_before_summary": True, **tally.as_json()}


def format_summary(summary: RunSummary) -> str:
    """The summary as a person reads it at the end of a run."""
    tally = summary.tally
    errors = ", ".join(f"{code} {count}" for code, count in tally.errors.most_common()) or "none"
    lines = [
        ("clips", f"{tally.clips} ({tally.annotated} annotated)"),
        ("audio", format_hours(tally.seconds / 3600)),
        ("errors", errors),
        ("shards", f"{summary.shards_read} read, {summary.shards_skipped} finished before and skipped"),
        ("wall time", f"{summary.wall_s:.1f} s"),
    ]
    if summary.clips_done_before:
        lines.insert(1, ("of these", f"{summary.clips_done_before} done before this start"))
    if summary.rtfx is not None:
        lines.append(("RTFx", f"{summary.rtfx:.1f} (seconds of audio per second)"))
    lines += [("", f"{seconds:.1f} s in {stage}") for stage, seconds in (summary.stage_s or {}).items()]
    if summary.encoder is not None:
        lines.append(("encoder", _format_encoder(summary.encoder)))
    for metric in tally.metrics.values():
        lines += metric.lines()
    lines.append(("output", summary.output))
    return format_lines(lines)


def format_lines(lines: Iterable[tuple[str, str]], width: int = 12) -> str:
    """(name, value) below each other in two columns, the first `width` wide."""
    return "\n".join(f"{name:<{width}}{value}" for name, value in lines)


def format_hours(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def _format_encoder(encoder: EncoderUse) -> str:
    shared = "; ".join(f"one for {', '.join(tasks)}" for tasks in encoder.backbones)
    if encoder.passes is None:
        return f"passes not counted, their counter died ({shared})"
    return f"{encoder.passes} passes over {encoder.frames} frames ({shared})"
