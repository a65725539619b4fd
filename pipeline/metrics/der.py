"""Diarization error rate against a reference RTTM, scored by pyannote.metrics."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from pipeline.clip_names import encode_field, names_of
from pipeline.errors import JobError
from pipeline.storage import Storage, StorageError

# Record types of RTTM (NIST RT-09 evaluation plan, appendix A) that say nothing of who speaks.
_OTHER_RECORDS = frozenset(
    {"SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "IP", "SU"}
    | {"CB", "A/P", "SPKR-INFO"}
)


class Segment(NamedTuple):
    """One speaker's speech without a pause, in seconds from the start of the clip."""

    speaker: str
    start_s: float
    end_s: float


@dataclass
class SpeakerErrors:
    """Seconds of speech in the reference, and of each kind of error; they add up over clips."""

    total: float = 0.0
    missed: float = 0.0
    false_alarm: float = 0.0
    confusion: float = 0.0

    def add(self, other: SpeakerErrors) -> None:
        self.total += other.total
        self.missed += other.missed
        self.false_alarm += other.false_alarm
        self.confusion += other.confusion

    @property
    def rate(self) -> float | None:
        """DER; None where the reference has no speech."""
        return (self.missed + self.false_alarm + self.confusion) / self.total if self.total else None


@dataclass
class ScoredRecordings:
    """Errors by the reference's name of the recording.

    Where several clips answer to one name nobody knows whose reference it is: none of them counts.
    """

    errors: dict[str, SpeakerErrors] = field(default_factory=dict)
    ambiguous: set[str] = field(default_factory=set)

    def add(self, other: ScoredRecordings) -> None:
        self.ambiguous |= other.ambiguous | (self.errors.keys() & other.errors.keys())
        self.errors |= other.errors
        for name in self.ambiguous:
            self.errors.pop(name, None)

    @property
    def sum(self) -> SpeakerErrors:
        total = SpeakerErrors()
        for errors in self.errors.values():
            total.add(errors)
        return total


@dataclass(frozen=True)
class References:
    """The true segments of recordings, by the names that the RTTM gives them."""

    segments: Mapping[str, tuple[Segment, ...]]

    @classmethod
    def read(cls, uri: str, storage: Storage) -> References:
        """Reads an RTTM file.

        Raises:
            JobError: no such file, a line that is not RTTM, no speaker in it, or pyannote.metrics is missing.
        """
        try:
            import pyannote.metrics.diarization  # noqa: F401
        except ImportError as problem:
            raise JobError(
                f"--reference-rttm needs pyannote.metrics ({problem}): pip install 'w2vbert[diarization]'"
            ) from problem
        try:
            text = storage.read_bytes(uri).decode("utf-8")
        except UnicodeDecodeError as problem:
            raise JobError(f"--reference-rttm {uri} is not a text file: {problem}") from problem
        except StorageError as problem:
            raise JobError(f"--reference-rttm: {problem}.") from problem
        # Not pyannote.database's load_rttm: it drops speakers called NA or None, and knows no line numbers.
        segments: defaultdict[str, list[Segment]] = defaultdict(list)
        for number, line in enumerate(text.splitlines(), 1):
            fields = line.split()
            if not fields or fields[0].startswith(";;") or fields[0] in _OTHER_RECORDS:
                continue
            if (segment := _speaker_record(fields)) is None:
                raise JobError(
                    f"--reference-rttm {uri}, line {number}: not an RTTM record "
                    f"(SPEAKER recording channel start duration <NA> <NA> speaker <NA> <NA>): {line[:200]}"
                )
            segments[fields[1]].append(segment)
        if not segments:
            raise JobError(f"--reference-rttm {uri} holds no SPEAKER record")
        return cls({name: tuple(found) for name, found in segments.items()})

    def name_of(self, clip_id: str) -> str | None:
        """The name under which the reference knows a clip: the surest of its names that stands there,
        plain or as `jobs/export.py` writes it."""
        spelled = (form for name in names_of(clip_id) for form in (name, encode_field(name)))
        return next((name for name in spelled if name in self.segments), None)

    def score(self, clip_id: str, segments: Iterable[Segment], duration_s: float) -> ScoredRecordings:
        """One clip's errors; nothing where the reference does not know it."""
        name = self.name_of(clip_id)
        return ScoredRecordings(
            {} if name is None else {name: score(self.segments[name], segments, duration_s)}
        )


@dataclass
class DiarizationErrors:
    """Speaker segments (`segments`) against a reference; without one nothing is scored."""

    references: References | None = None
    recordings: ScoredRecordings = field(default_factory=ScoredRecordings)

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.references is None else ("clip_id", "segments", "duration_s")

    def add_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        if self.references is None:
            return
        for row in rows:
            if row.get("segments") is not None:
                segments = [Segment(**segment) for segment in row["segments"]]
                self.recordings.add(self.references.score(row["clip_id"], segments, row["duration_s"]))

    def add(self, other: DiarizationErrors) -> None:
        self.recordings.add(other.recordings)

    def facts(self) -> dict[str, Any]:
        total = self.recordings.sum
        return {
            "der": total.rate,
            "der_components": asdict(total),
            "der_clips": len(self.recordings.errors),
            "der_ambiguous": sorted(self.recordings.ambiguous),
        }

    def lines(self) -> list[tuple[str, str]]:
        lines, total = [], self.recordings.sum
        if total.rate is not None:
            parts = (
                ("missed", total.missed),
                ("false alarm", total.false_alarm),
                ("confusion", total.confusion),
            )
            shares = ", ".join(f"{seconds / total.total:.2%} {name}" for name, seconds in parts)
            clips = len(self.recordings.errors)
            lines.append(("DER", f"{total.rate:.2%} over {clips} clips with a reference ({shares})"))
        if ambiguous := sorted(self.recordings.ambiguous):
            names = ", ".join(ambiguous[:3]) + (
                f" and {len(ambiguous) - 3} more" if len(ambiguous) > 3 else ""
            )
            lines.append(("", f"not scored: several clips answer to {names} of the reference"))
        return lines


def _speaker_record(fields: list[str]) -> Segment | None:
    if fields[0] != "SPEAKER" or len(fields) < 8:
        return None
    try:
        start, duration = float(fields[3]), float(fields[4])
    except ValueError:
        return None
    if not (math.isfinite(start + duration) and duration >= 0):
        return None
    return Segment(fields[7], start, start + duration)


def score(reference: Iterable[Segment], segments: Iterable[Segment], duration_s: float) -> SpeakerErrors:
    """Errors of `segments` from 0 to `duration_s`: without a collar, overlapping speech included.

    Source: Fiscus et al. 2006, "The Rich Transcription 2006 Spring Meeting Recognition Evaluation"; speakers
    are matched so that the time in common is the most.
    """
    from pyannote.core import Annotation, Timeline
    from pyannote.core import Segment as Extent
    from pyannote.metrics.diarization import DiarizationErrorRate

    def annotation(turns: Iterable[Segment]) -> Annotation:
        found = Annotation()
        for track, (speaker, start_s, end_s) in enumerate(turns):
            found[Extent(start_s, end_s), track] = speaker
        return found

    found = DiarizationErrorRate()(
        annotation(reference), annotation(segments), uem=Timeline([Extent(0, duration_s)]), detailed=True
    )
    return SpeakerErrors(found["total"], found["missed detection"], found["false alarm"], found["confusion"])
