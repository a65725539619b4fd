"""Diarization error rate: pyannote.metrics' numbers, for the right clips, added up."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyannote.core import Annotation, Timeline
from pyannote.core import Segment as Extent
from pyannote.database.util import load_rttm
from pyannote.metrics.diarization import DiarizationErrorRate

from pipeline.clip_names import names_of
from pipeline.errors import JobError
from pipeline.metrics.der import References, ScoredRecordings, SpeakerErrors, score
from pipeline.reports.summary import Tally, as_json, for_the_eye, tally_file
from pipeline.storage import Storage, StorageOptions
from pipeline.table.schema import DIARIZATION_COLUMNS, output_schema
from pipeline.tasks.diarization.binarise import Segment

STORAGE = Storage(StorageOptions())
RUN = {"shards_read": 1, "shards_skipped": 0, "wall_s": 1.0, "output": "out"}


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
        total.add(score(reference, found, 8))
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
    errors = score(reference, found, duration_s=10)
    assert errors == SpeakerErrors(total=7, missed=1, false_alarm=1, confusion=1)
    assert errors.rate == pytest.approx(3 / 7)
    assert SpeakerErrors(false_alarm=2).rate is None


def test_a_real_meeting(shared_data: Path) -> None:
    file = shared_data / "meeting" / "dev00.rttm"
    references = References.read(str(file), STORAGE)
    turns = references.segments["dev00"]
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


def test_names_of_a_clip() -> None:
    assert names_of("calls/a.tar#2024/x") == ["calls/a.tar#2024/x", "calls/a.tar", "2024/x", "x"]
    assert names_of("calls/b.wav#b") == ["calls/b.wav#b", "calls/b.wav", "b"]
    assert names_of("broken.tar#") == ["broken.tar#", "broken.tar"]


def test_rttm_with_comments_and_other_records(tmp_path: Path) -> None:
    references = rttm(
        tmp_path,
        ";; a comment\n"
        "SPKR-INFO b 1 <NA> <NA> <NA> adult_male NA <NA>\n\n"
        "SPEAKER b 1 0.5 1.5 <NA> <NA> NA <NA> <NA>\n"
        "SPEAKER a#1 1 0 2 <NA> <NA> None <NA>\n"
        "SPEAKER b 1 3.0 1.0 <NA> <NA> two <NA> <NA>\n",
    )
    assert references.segments == {
        "b": (Segment("NA", 0.5, 2.0), Segment("two", 3.0, 4.0)),
        "a#1": (Segment("None", 0.0, 2.0),),
    }
    assert references.name_of("a#1") == "a#1"
    assert references.name_of("x/b.wav#b") == references.name_of("y.tar#x/b") == "b"
    assert references.name_of("a#2") is None
    assert pickle.loads(pickle.dumps(references)) == references


@pytest.mark.parametrize(
    "line",
    [
        "SPEAKER a 1 0.0 x <NA> <NA> s <NA> <NA>",
        "SPEAKER a 1 0.0 -1 <NA> <NA> s <NA> <NA>",
        "SPEAKER a 1 nan 1 <NA> <NA> s <NA> <NA>",
        "SPEAKER a 1 0.0 1.0",
        "clip_id,speaker,start,end",
    ],
)
def test_a_line_that_is_not_rttm_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(JobError, match=r"true\.rttm, line 2: not an RTTM record"):
        rttm(tmp_path, f"SPEAKER a 1 0 1 <NA> <NA> s <NA> <NA>\n{line}\n")


def test_files_that_cannot_serve(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"--reference-rttm: .*absent\.rttm does not exist"):
        References.read(str(tmp_path / "absent.rttm"), STORAGE)
    with pytest.raises(JobError, match="holds no SPEAKER record"):
        rttm(tmp_path, ";; nothing\n")
    (tmp_path / "audio.wav").write_bytes(b"RIFF\xff\xfe")
    with pytest.raises(JobError, match="is not a text file"):
        References.read(str(tmp_path / "audio.wav"), STORAGE)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyannote.metrics.diarization", None)
    with pytest.raises(JobError, match=r"pip install 'w2vbert\[diarization\]'"):
        References.read("any.rttm", STORAGE)


def test_several_clips_of_one_name_do_not_count_whatever_the_order() -> None:
    def recordings(*names: str) -> ScoredRecordings:
        return ScoredRecordings({name: SpeakerErrors(total=1) for name in names})

    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        parts = [recordings("a", "b"), recordings("b", "c"), recordings("b", "d")]
        total = ScoredRecordings()
        for i in order:
            total.add(parts[i])
        assert total.errors.keys() == {"a", "c", "d"}
        assert total.ambiguous == {"b"}
        assert total.sum.total == 3
    left, right = recordings("a"), recordings("a")
    left.add(right)
    left.add(recordings("a"))
    assert (left.errors, left.ambiguous) == ({}, {"a"})


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


def test_the_summary_of_a_table(table: str, tmp_path: Path) -> None:
    records = "".join(f"SPEAKER {name} 1 0 2 <NA> <NA> me <NA> <NA>\n" for name in "abde")
    tally = tally_file(table, STORAGE, rttm(tmp_path, records))
    summary = as_json(tally, RUN)
    assert summary["clips"] == 6
    assert summary["der"] == pytest.approx(0.75)
    assert summary["der_components"] == {"total": 4, "missed": 2, "false_alarm": 1, "confusion": 0}
    assert (summary["der_clips"], summary["der_ambiguous"]) == (2, ["d"])
    seen = for_the_eye(summary)
    assert (
        "DER         75.00% over 2 clips with a reference (50.00% missed, 25.00% false alarm, 0.00%" in seen
    )
    assert "several clips answer to d of the reference" in seen
    assert "WER" not in seen
    more = Tally()
    more.add(tally)
    assert as_json(more, RUN)["der"] == summary["der"]


def test_without_a_reference_there_is_no_rate(table: str) -> None:
    summary = as_json(tally_file(table, STORAGE), RUN)
    assert (summary["der"], summary["der_clips"]) == (None, 0)
    assert "DER" not in for_the_eye(summary)
    assert np.isclose(summary["hours"], 20 / 3600)
