"""What a run did: counts from its rows, times from Ray, as a dictionary and for the eye."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import jiwer
import pyarrow.parquet as pq
import ray

from pipeline.metrics.der import References, ScoredRecordings
from pipeline.storage import Storage, path_of
from pipeline.tasks.diarization.binarise import Segment

_COLUMNS = ("duration_s", "error", "encoder_s", "text", "ref_text")
_SPEAKER_COLUMNS = ("clip_id", "segments")


@dataclass
class Edits:
    """Edit counts of hypotheses against references, in words or characters."""

    right: int = 0
    wrong: int = 0
    missing: int = 0
    inserted: int = 0

    def add(self, other: Edits) -> None:
        self.right += other.right
        self.wrong += other.wrong
        self.missing += other.missing
        self.inserted += other.inserted

    @property
    def rate(self) -> float | None:
        """Errors per reference token: WER or CER; None without a reference."""
        length = self.right + self.wrong + self.missing
        return (self.wrong + self.missing + self.inserted) / length if length else None


@dataclass
class Tally:
    """Sums over output rows that add up, whatever the order."""

    clips: int = 0
    annotated: int = 0
    seconds: float = 0.0
    encoder_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    scored: int = 0
    words: Edits = field(default_factory=Edits)
    characters: Edits = field(default_factory=Edits)
    speakers: ScoredRecordings = field(default_factory=ScoredRecordings)

    def add(self, other: Tally) -> None:
        self.clips += other.clips
        self.annotated += other.annotated
        self.seconds += other.seconds
        self.encoder_s += other.encoder_s
        self.errors += other.errors
        self.scored += other.scored
        self.words.add(other.words)
        self.characters.add(other.characters)
        self.speakers.add(other.speakers)

    @property
    def error_rate(self) -> float:
        return sum(self.errors.values()) / self.clips if self.clips else 0.0


def tally_file(uri: str, storage: Storage, references: References | None = None) -> Tally:
    """Sums one output file, reading only the columns that count; `references` of speakers give the DER."""
    total = Tally()
    wanted = _COLUMNS if references is None else (*_COLUMNS, *_SPEAKER_COLUMNS)
    with pq.ParquetFile(path_of(uri), filesystem=storage.arrow_filesystem(uri)) as file:
        columns = [name for name in wanted if name in file.schema_arrow.names]
        for batch in file.iter_batches(columns=columns):
            total.add(tally_rows(batch.to_pylist(), references))
    return total


def tally_rows(rows: Iterable[Mapping[str, Any]], references: References | None = None) -> Tally:
    total = Tally()
    texts, hypotheses = [], []
    for row in rows:
        total.clips += 1
        if row["error"] is not None:
            total.errors[row["error"]["code"]] += 1
            continue
        total.annotated += 1
        total.seconds += row["duration_s"] or 0.0
        total.encoder_s += row["encoder_s"] or 0.0
        reference = row.get("ref_text")
        if row.get("text") is not None and isinstance(reference, str) and reference.strip():
            texts.append(reference.strip())
            hypotheses.append(row["text"])
        if references is not None and row.get("segments") is not None:
            segments = [Segment(**segment) for segment in row["segments"]]
            total.speakers.add(references.score(row["clip_id"], segments, row["duration_s"]))
    if texts:
        total.scored = len(texts)
        total.words = _edits(jiwer.process_words(texts, hypotheses))
        total.characters = _edits(jiwer.process_characters(texts, hypotheses))
    return total


def _edits(measured: jiwer.WordOutput | jiwer.CharacterOutput) -> Edits:
    return Edits(measured.hits, measured.substitutions, measured.deletions, measured.insertions)


def tally_files(uris: Iterable[str], storage: Storage, references: References | None = None) -> Tally:
    """Sums output files side by side on the cluster."""
    task: Any = ray.remote(num_cpus=0.25)(tally_file)
    held = ray.put(references)
    total = Tally()
    pending = [task.remote(uri, storage, held) for uri in uris]
    while pending:
        ready, pending = ray.wait(pending)
        for tally in ray.get(ready):
            total.add(tally)
    return total


def as_json(tally: Tally, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The run's summary as it stands beside the output."""
    speakers = tally.speakers.sum
    return {
        **facts,
        "clips": tally.clips,
        "annotated": tally.annotated,
        "hours": tally.seconds / 3600,
        "encoder_s": tally.encoder_s,
        "errors": dict(tally.errors.most_common()),
        "error_rate": tally.error_rate,
        "scored_clips": tally.scored,
        "wer": tally.words.rate,
        "cer": tally.characters.rate,
        "word_edits": asdict(tally.words),
        "der": speakers.rate,
        "der_components": asdict(speakers),
        "der_clips": len(tally.speakers.errors),
        "der_ambiguous": sorted(tally.speakers.ambiguous),
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
