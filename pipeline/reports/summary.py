"""What a run did: counts from its rows, times from Ray, as a dictionary and for the eye."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq
import ray

from pipeline.metrics.base import Metric
from pipeline.storage import Storage, path_of

_COLUMNS = ("duration_s", "error", "encoder_s")


@dataclass
class Tally:
    """Sums over output rows that add up, whatever the order."""

    clips: int = 0
    annotated: int = 0
    seconds: float = 0.0
    encoder_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    metrics: Mapping[str, Any] = field(default_factory=dict)  # of each task: pipeline.metrics.base.Metric

    def add(self, other: Tally) -> None:
        self.clips += other.clips
        self.annotated += other.annotated
        self.seconds += other.seconds
        self.encoder_s += other.encoder_s
        self.errors += other.errors
        for name, metric in self.metrics.items():
            metric.add(other.metrics[name])

    @property
    def error_rate(self) -> float:
        return sum(self.errors.values()) / self.clips if self.clips else 0.0


def tally_file(uri: str, storage: Storage, metrics: Mapping[str, Metric]) -> Tally:
    """Sums one output file, reading only the columns that count; `metrics` have summed nothing yet."""
    total = Tally(metrics=deepcopy(metrics))
    wanted = {*_COLUMNS}.union(*(metric.columns for metric in metrics.values()))
    with pq.ParquetFile(path_of(uri), filesystem=storage.arrow_filesystem(uri)) as file:
        columns = [name for name in file.schema_arrow.names if name in wanted]
        for batch in file.iter_batches(columns=columns):
            tally_rows(batch.to_pylist(), total)
    return total


def tally_rows(rows: Iterable[Mapping[str, Any]], total: Tally) -> None:
    good = []
    for row in rows:
        total.clips += 1
        if row["error"] is not None:
            total.errors[row["error"]["code"]] += 1
            continue
        total.annotated += 1
        total.seconds += row["duration_s"] or 0.0
        total.encoder_s += row["encoder_s"] or 0.0
        good.append(row)
    for metric in total.metrics.values():
        metric.add_rows(good)


def tally_files(uris: Iterable[str], storage: Storage, metrics: Mapping[str, Metric]) -> Tally:
    """Sums output files side by side on the cluster."""
    task: Any = ray.remote(num_cpus=0.25)(tally_file)
    held = ray.put(metrics)
    total = Tally(metrics=deepcopy(metrics))
    pending = [task.remote(uri, storage, held) for uri in uris]
    while pending:
        ready, pending = ray.wait(pending)
        for tally in ray.get(ready):
            total.add(tally)
    return total


def as_json(tally: Tally, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The run's summary as it stands beside the output."""
    return {
        **facts,
        "clips": tally.clips,
        "annotated": tally.annotated,
        "hours": tally.seconds / 3600,
        "encoder_s": tally.encoder_s,
        "errors": dict(tally.errors.most_common()),
        "error_rate": tally.error_rate,
        **{name: value for metric in tally.metrics.values() for name, value in metric.facts().items()},
    }


def for_the_eye(summary: Mapping[str, Any]) -> str:
    """The summary as a person reads it at the end of a run."""
    errors = ", ".join(f"{code} {count}" for code, count in summary["errors"].items()) or "none"
    lines = [
        ("clips", f"{summary['clips']} ({summary['annotated']} annotated)"),
        ("audio", _hours(summary["hours"])),
        ("errors", errors),
        ("shards", f"{summary['shards_read']} read, {summary['shards_skipped']} finished before and skipped"),
        ("wall time", f"{summary['wall_s']:.1f} s"),
    ]
    if summary.get("clips_done_before"):
        lines.insert(1, ("of these", f"{summary['clips_done_before']} done before this start"))
    if summary.get("rtfx") is not None:
        lines.append(("RTFx", f"{summary['rtfx']:.1f} (seconds of audio per second)"))
    for stage, seconds in summary.get("stage_s", {}).items():
        lines.append(("", f"{seconds:.1f} s in {stage}"))
    if encoder := summary.get("encoder"):
        lines.append(("encoder", _encoder(encoder)))
    if summary["wer"] is not None:
        lines.append(("WER", f"{summary['wer']:.2%} over {summary['scored_clips']} clips with a reference"))
        lines.append(("CER", f"{summary['cer']:.2%}"))
    if summary["der"] is not None:
        lines.append(("DER", _der(summary)))
    if ambiguous := summary["der_ambiguous"]:
        lines.append(("", f"not scored: several clips answer to {_some(ambiguous)} of the reference"))
    lines.append(("output", summary["output"]))
    return "\n".join(f"{name:<12}{value}" for name, value in lines)


def _hours(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def _encoder(encoder: Mapping[str, Any]) -> str:
    """How often it ran, and for what."""
    shared = "; ".join(f"one for {', '.join(tasks)}" for tasks in encoder["backbones"])
    return f"{encoder['passes']} passes over {encoder['frames']} frames ({shared})"


def _der(summary: Mapping[str, Any]) -> str:
    parts = summary["der_components"]
    shares = ", ".join(
        f"{parts[name] / parts['total']:.2%} {words}"
        for name, words in (("missed", "missed"), ("false_alarm", "false alarm"), ("confusion", "confusion"))
    )
    return f"{summary['der']:.2%} over {summary['der_clips']} clips with a reference ({shares})"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
