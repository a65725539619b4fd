"""Diarization error rate against a reference RTTM, scored by pyannote.metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.clip_names import names_of
from pipeline.errors import JobError
from pipeline.metrics.rttm import Marks, Segment, read_rttm
from pipeline.storage import Storage


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

    Of several clips that answer to one name that counts whose name it is most surely. Where this is not one,
    nobody knows whose reference it is: none of them counts.

    Attributes:
        found: by name, how sure it is (0: the surest), and the errors; None of several clips.
    """

    found: dict[str, tuple[int, SpeakerErrors | None]] = field(default_factory=dict)

    def add(self, other: ScoredRecordings) -> None:
        for name, (place, errors) in other.found.items():
            held = self.found.get(name)
            if held is None or place < held[0]:
                self.found[name] = place, errors
            elif place == held[0]:
                self.found[name] = place, None

    @property
    def errors(self) -> dict[str, SpeakerErrors]:
        return {name: errors for name, (_, errors) in self.found.items() if errors is not None}

    @property
    def ambiguous(self) -> list[str]:
        return sorted(name for name, (_, errors) in self.found.items() if errors is None)

    @property
    def sum(self) -> SpeakerErrors:
        total = SpeakerErrors()
        for errors in self.errors.values():
            total.add(errors)
        return total


@dataclass(frozen=True)
class References:
    """The true segments of recordings, by the names that the RTTM gives them."""

    marks: Mapping[str, Marks]

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
        return cls(read_rttm("--reference-rttm", uri, storage))

    def name_of(self, clip_id: str) -> str | None:
        """The name under which the reference knows a clip: the surest of its names that stands there."""
        return next((name for name in names_of(clip_id) if name in self.marks), None)

    def score(self, clip_id: str, segments: Iterable[Segment], duration_s: float) -> ScoredRecordings:
        """One clip's errors; nothing where the reference does not know it."""
        name = self.name_of(clip_id)
        if name is None:
            return ScoredRecordings()
        errors = score(self.marks[name], segments, duration_s)
        return ScoredRecordings({name: (names_of(clip_id)[name], errors)})


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
            "der_ambiguous": self.recordings.ambiguous,
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
        if ambiguous := self.recordings.ambiguous:
            names = ", ".join(ambiguous[:3]) + (
                f" and {len(ambiguous) - 3} more" if len(ambiguous) > 3 else ""
            )
            lines.append(("", f"not scored: several clips answer to {names} of the reference"))
        return lines


def score(reference: Marks, segments: Iterable[Segment], duration_s: float) -> SpeakerErrors:
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

    unscored = Timeline([Extent(*span) for span in reference.unscored])
    scored = Timeline([Extent(0, duration_s)]).extrude(unscored)
    found = DiarizationErrorRate()(
        annotation(reference.segments), annotation(segments), uem=scored, detailed=True
    )
    return SpeakerErrors(found["total"], found["missed detection"], found["false alarm"], found["confusion"])
