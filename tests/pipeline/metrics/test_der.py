"""Diarization error rate: pyannote.metrics' numbers, for the right clips, added up."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyannote.core import Annotation, Timeline
from pyannote.core import Segment as Extent
from pyannote.database.util import load_rttm
from pyannote.metrics.diarization import DiarizationErrorRate

from pipeline.errors import JobError
from pipeline.metrics.der import (
    DiarizationErrors,
    References,
    ScoredRecordings,
    SpeakerErrors,
    score,
)
from pipeline.metrics.rttm import Marks, Segment, Span
from pipeline.schema import output_schema
from pipeline.storage import Storage, StorageOptions
from pipeline.tasks.diarize import DIARIZATION_COLUMNS

STORAGE = Storage(StorageOptions())


@st.composite
def turns(draw: st.DrawFn) -> list[Segment]:
    """Of up to three speakers, who may overlap; each pauses between two turns of his own."""
    found = []
    for speaker in draw(st.sets(st.sampled_from(["a", "b", "c"]))):
        edges = sorted(draw(st.sets(st.integers(0, 100), max_size=8)))
        pairs = zip(edges[::2], edges[1::2], strict=False)
        found += [Segment(speaker, start / 10, end / 10) for start, end in pairs]
    return sorted(found, key=lambda turn: turn.start_s)


def annotation(segments: list[Segment]) -> Annotation:
    made = Annotation()
    for number, segment in enumerate(segments):
        made[Extent(segment.start_s, segment.end_s), number] = segment.speaker
    return made


def rttm(tmp_path: Path, text: str) -> References:
    (tmp_path / "true.rttm").write_text(text)
    return References.read(str(tmp_path / "true.rttm"), STORAGE)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(turns(), turns()), min_size=1, max_size=4))
def test_clips_add_up_to_the_rate_of_pyannote_metrics(
    clips: list[tuple[list[Segment], list[Segment]]],
) -> None:
    metric, total = DiarizationErrorRate(), SpeakerErrors()
    for reference, found in clips:
        metric(annotation(reference), annotation(found), uem=Timeline([Extent(0, 8)]))
        total.add(score(Marks(reference), found, 8))
    components = metric[:]
    assert total.total == pytest.approx(components["total"])
    assert total.missed == pytest.approx(components["missed detection"])
    assert total.false_alarm == pytest.approx(components["false alarm"])
    assert total.confusion == pytest.approx(components["confusion"])
    if total.total:
        assert total.rate == pytest.approx(abs(metric))


def test_components_of_one_clip_by_hand() -> None:
    """Of a's 4 s one is missed and one confused; 1 s of x is nobody's; after the end nothing counts."""
    reference = [Segment("a", 0, 4), Segment("b", 6, 9), Segment("c", 10, 12)]
    found = [
        Segment("x", 1, 3),
        Segment("y", 3, 4),
        Segment("y", 6, 9),
        Segment("x", 9, 10),
        Segment("z", 10, 11),
    ]
    errors = score(Marks(reference), found, duration_s=10)
    assert errors == SpeakerErrors(total=7, missed=1, false_alarm=1, confusion=1)
    assert errors.rate == pytest.approx(3 / 7)
    assert SpeakerErrors(false_alarm=2).rate is None


def test_a_real_meeting(shared_data: Path) -> None:
    file = shared_data / "meeting" / "dev00.rttm"
    references = References.read(str(file), STORAGE)
    turns = references.marks["dev00"].segments
    expected = [(label, turn.start, turn.end) for turn, _, label in load_rttm(file)["dev00"].itertracks(True)]
    assert sorted(turns) == sorted(expected)
    assert references.score("m/dev00.wav#dev00", turns, 30.0).sum.rate == 0
    # All speech as one speaker's: wrong is what the second speaker says.
    one = [Segment("speaker_0", turn.start_s, turn.end_s) for turn in turns]
    errors = references.score("m/dev00.wav#dev00", one, 30.0).sum
    metric = DiarizationErrorRate()
    rate = metric(load_rttm(file)["dev00"], annotation(one), uem=Timeline([Extent(0, 30)]))
    assert errors.rate == pytest.approx(rate)
    assert 0.1 < rate < 0.5
    assert (errors.missed, errors.false_alarm) == (0, 0)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyannote.metrics.diarization", None)
    with pytest.raises(JobError, match=r"pip install 'w2vbert\[diarization\]'"):
        References.read("any.rttm", STORAGE)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 0, 1), (1, 3, 2, 0)])
def test_of_several_clips_of_one_name_the_surest_counts_whatever_the_order(order: tuple[int, ...]) -> None:
    def recordings(**places: int) -> ScoredRecordings:
        return ScoredRecordings({name: (place, SpeakerErrors(1 + place)) for name, place in places.items()})

    parts = [recordings(a=4, b=2), recordings(b=2, c=0), recordings(b=2, d=6), recordings(d=1, e=3)]
    total = ScoredRecordings()
    for i in order:
        total.add(parts[i])
    assert total.errors == {name: SpeakerErrors(n) for name, n in {"a": 5, "c": 1, "d": 2, "e": 4}.items()}
    assert total.ambiguous == ["b"]
    assert total.sum.total == 12
    total.add(recordings(b=0))
    assert total.errors["b"].total == 1
    assert total.ambiguous == []


def test_what_is_not_to_be_scored_is_not() -> None:
    """From 1 to 2 s a speaks and nobody is found, from 8 to 10 s nobody speaks and x is found."""
    marks = Marks([Segment("a", 0, 4)], [Span(1, 2), Span(8, 99)])
    assert score(marks, [Segment("x", 0, 1), Segment("x", 3, 9)], 10) == SpeakerErrors(3, 1, 4, 0)
    assert score(Marks(marks.segments), [Segment("x", 0, 1), Segment("x", 3, 9)], 10) == SpeakerErrors(
        4, 2, 5, 0
    )


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Two clips that the reference knows, one it does not, two of one name, one that failed."""
    schema = output_schema(pa.schema([]), DIARIZATION_COLUMNS)
    error = {"stage": "decode", "code": "empty", "message": "no bytes"}
    rows = [
        {"clip_id": "a.wav#a", "duration_s": 4.0, "segments": [("speaker_0", 0.0, 3.0)]},
        {"clip_id": "b.wav#b", "duration_s": 4.0, "segments": []},
        {"clip_id": "c.wav#c", "duration_s": 4.0, "segments": [("speaker_0", 0.0, 3.0)]},
        {"clip_id": "x/d.wav#d", "duration_s": 4.0, "segments": [("speaker_0", 0.0, 3.0)]},
        {"clip_id": "y/d.wav#d", "duration_s": 4.0, "segments": [("speaker_0", 0.0, 3.0)]},
        {"clip_id": "e.wav#e", "error": error},
    ]
    for row in rows:
        found = row.get("segments")
        row["segments"] = None if found is None else [Segment(*each)._asdict() for each in found]  # type: ignore
    uri = str(tmp_path / "part.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), uri)
    return uri


def errors_of(table: str, references: References | None) -> DiarizationErrors:
    metric = DiarizationErrors(references)
    columns = ["error", *metric.columns]
    rows = pq.read_table(table, columns=columns).to_pylist()
    metric.add_rows([row for row in rows if row["error"] is None])
    return metric


def test_the_summary_of_a_table(table: str, tmp_path: Path) -> None:
    records = "".join(f"SPEAKER {name} 1 0 2 <NA> <NA> me <NA> <NA>\n" for name in "abde")
    metric = errors_of(table, rttm(tmp_path, records))
    assert metric.facts() == {
        "der": pytest.approx(0.75),
        "der_components": {"total": 4, "missed": 2, "false_alarm": 1, "confusion": 0},
        "der_clips": 2,
        "der_ambiguous": ["d"],
    }
    assert metric.lines() == [
        ("DER", "75.00% over 2 clips with a reference (50.00% missed, 25.00% false alarm, 0.00% confusion)"),
        ("", "not scored: several clips answer to d of the reference"),
    ]
    more = pickle.loads(pickle.dumps(DiarizationErrors(metric.references)))
    more.add(metric)
    assert more.facts() == metric.facts()


def test_without_a_reference_there_is_no_rate(table: str) -> None:
    metric = errors_of(table, None)
    assert (metric.columns, metric.lines()) == ((), [])
    assert metric.facts() == {
        "der": None,
        "der_components": {"total": 0, "missed": 0, "false_alarm": 0, "confusion": 0},
        "der_clips": 0,
        "der_ambiguous": [],
    }
