"""The demo's four checkpoints share an encoder and do their jobs; its meeting is what its texts say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from pyannote.core import Annotation, Segment, Timeline
from pyannote.database.util import load_rttm

from w2vbert import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2BertForXVector,
)
from w2vbert.pretrained.digest import backbone_digest

DEMO = Path(__file__).resolve().parents[2] / "demo"
MEETING = DEMO / "meeting"
CHECKPOINTS = {
    "checkpoint": Wav2Vec2BertForCTC,
    "classify": Wav2Vec2BertForSequenceClassification,
    "diarize": Wav2Vec2BertForAudioFrameClassification,
    "embed": Wav2Vec2BertForXVector,
}


@pytest.fixture(scope="module")
def measure() -> Iterator[ModuleType]:
    """`demo/measure_heads.py`, which finds its neighbours as a script does."""
    sys.path.insert(0, str(DEMO))
    import measure_heads

    yield measure_heads
    sys.path.remove(str(DEMO))


@pytest.fixture(scope="module")
def turns() -> Annotation:
    recordings = load_rttm(MEETING / "meeting.rttm")
    assert list(recordings) == ["meeting"]
    return recordings["meeting"]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoint_is_complete(name: str) -> None:
    kind: Any = CHECKPOINTS[name]
    _, info = kind.from_pretrained(DEMO / name, output_loading_info=True)
    assert info == {
        "missing_keys": set(),
        "unexpected_keys": set(),
        "mismatched_keys": set(),
        "error_msgs": [],
    }
    extractor = SeamlessM4TFeatureExtractor.from_pretrained(DEMO / name)
    assert extractor.to_dict() == SeamlessM4TFeatureExtractor.from_pretrained(DEMO / "checkpoint").to_dict()
    assert sum(path.stat().st_size for path in (DEMO / name).iterdir()) < 3_500_000


def test_all_share_one_encoder() -> None:
    digests = {backbone_digest(kind.from_pretrained(DEMO / name)) for name, kind in CHECKPOINTS.items()}
    assert len(digests) == 1


@pytest.mark.slow
def test_corpus_voices_are_labelled_as_one_hears_them(measure: ModuleType) -> None:
    classify = measure.Head(Wav2Vec2BertForSequenceClassification, DEMO / "classify")
    clips = list(measure.corpus())
    assert len(clips) == 29
    right = [classify.label(samples) == measure.HEARD[speaker] for speaker, samples in clips]
    assert np.mean(right) >= 0.85


@pytest.mark.slow
def test_meeting_is_diarized(measure: ModuleType, turns: Annotation) -> None:
    diarize = measure.Head(Wav2Vec2BertForAudioFrameClassification, DEMO / "diarize")
    samples = measure.decoded(MEETING / "meeting.flac")
    found = diarize.segments(samples)
    assert sorted(found.labels()) == ["female", "male"]
    metric = measure.DiarizationErrorRate()
    everything = Timeline([Segment(0, len(samples) / measure.RATE)])
    assert metric(turns, found, uem=everything) < 0.3
    mapping = metric.optimal_mapping(turns, found)
    assert mapping == {"female": "en-us+f3", "male": "en-us+m4"}


def test_meeting_and_its_texts_agree(turns: Annotation) -> None:
    info = soundfile.info(MEETING / "meeting.flac")
    assert (info.format, info.samplerate, info.channels) == ("FLAC", 16_000, 1)
    assert 120 <= info.duration <= 150
    (entry,) = map(json.loads, (MEETING / "list.jsonl").read_text().splitlines())
    assert entry["audio_filepath"] == "meeting.flac"
    assert entry["duration"] == pytest.approx(info.duration, abs=1e-4)
    # Each turn has 2 to 6 words, and the last one ends half a second before the recording.
    segments = list(turns.itersegments())
    assert 2 * len(segments) <= len(entry["text"].split()) <= 6 * len(segments)
    assert max(segment.end for segment in segments) == pytest.approx(info.duration - 0.5, abs=2e-3)


def test_meeting_has_two_speakers_overlaps_and_a_silence(turns: Annotation) -> None:
    assert turns.labels() == ["en-us+f3", "en-us+m4"]
    assert len(turns.get_overlap()) >= 3
    pauses = [gap.duration for gap in turns.get_timeline().gaps()]
    assert 15 <= max(pauses) <= 16.5
    assert sorted(pauses)[-2] < 2


def test_meeting_is_heard_where_the_turns_say(turns: Annotation) -> None:
    samples, rate = soundfile.read(MEETING / "meeting.flac")
    for segment in turns.itersegments():
        assert np.std(samples[round(segment.start * rate) : round(segment.end * rate)]) > 3e-3
    for gap in turns.get_timeline().gaps():
        assert np.std(samples[round(gap.start * rate) : round(gap.end * rate)]) < 1e-3


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_script_makes_the_committed_meeting(tmp_path: Path) -> None:
    """Other versions of espeak-ng may speak at another pace, but the same words in the same order."""
    subprocess.run([sys.executable, DEMO / "make_meeting.py", tmp_path], check=True)

    def said(folder: Path) -> tuple[str, list[str]]:
        entry = json.loads((folder / "list.jsonl").read_text())
        return entry["text"], [line.split()[7] for line in (folder / "meeting.rttm").read_text().splitlines()]

    assert said(tmp_path) == said(MEETING)
