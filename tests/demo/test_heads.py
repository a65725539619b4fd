"""The demo's four checkpoints share an encoder and do their jobs; its meeting is what its texts say."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
import transformers
from pyannote.core import Annotation
from pyannote.database.util import load_rttm
from safetensors.torch import load_file

from pipeline.metrics.rttm import read_rttm
from pipeline.storage import Storage, StorageOptions
from pipeline.training.report.scores import metrics_of
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
TASKS = ("transcribe", "classify", "diarize", "embed")
# What demo/README.md says, and a little more.
WER, ACCURACY, DER, EER = 0.10, 0.85, 0.20, 0.40


@pytest.fixture(scope="module")
def measured(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """The metrics of each task on the corpus and the meeting, as `demo/measure.py` finds them."""
    from jobs.annotate import main

    output = tmp_path_factory.mktemp("demo") / "annotated"
    arguments = ["--input", DEMO / "corpus", "--input", MEETING / "meeting.flac", "--output", output]
    for task, place in zip(TASKS, CHECKPOINTS, strict=True):
        arguments += [f"--{task}", DEMO / place]
    assert main(list(map(str, arguments))) == 0
    rows = [row for row in pq.read_table(output).to_pylist() if row["error"] is None]
    assert len(rows) == 30
    marks = read_rttm("RTTM", str(MEETING / "meeting.rttm"), Storage(StorageOptions()))
    scored = _script("measure").scored(rows, marks)
    counts = {task: len(clips) for task, clips in scored.items()}
    assert counts == {"transcribe": 29, "classify": 29, "diarize": 1, "embed": 29}
    return {task: metrics_of(task, clips) for task, clips in scored.items()}


def _script(name: str) -> ModuleType:
    """A script of the demo, which finds its neighbours as a script does."""
    sys.path.insert(0, str(DEMO))
    try:
        return importlib.import_module(name)
    finally:
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


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_transformers_computes_the_same(name: str) -> None:
    """Weights lie there in float16; both load them as float32."""
    kind: Any = CHECKPOINTS[name]
    ours = kind.from_pretrained(DEMO / name).eval()
    theirs = getattr(transformers, kind.__name__).from_pretrained(DEMO / name).eval()
    assert {p.dtype for p in ours.parameters()} == {p.dtype for p in theirs.parameters()} == {torch.float32}
    assert all(
        tensor.dtype == torch.float16 for tensor in load_file(DEMO / name / "model.safetensors").values()
    )
    features = torch.randn(1, 90, 160, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(features).logits, theirs(features).logits, atol=1e-4, rtol=1e-4)


def test_demo_is_small() -> None:
    listed = subprocess.run(["git", "ls-files", "demo"], cwd=DEMO.parent, capture_output=True, text=True)
    files = [DEMO.parent / line for line in listed.stdout.splitlines()]
    assert sum(file.stat().st_size for file in files) < 12_000_000
    encoder = Wav2Vec2BertForCTC.from_pretrained(DEMO / "checkpoint").wav2vec2_bert
    assert sum(p.numel() for p in encoder.parameters()) < 4_000_000


def test_voices_of_measurements_are_heard_nowhere_else() -> None:
    voices, corpus = _script("voices"), _script("make_corpus")
    held_out = {name for names in voices.HELD_OUT.values() for name in names}
    known = {name for names in voices.KNOWN.values() for name in names}
    of_corpus = {speaker.partition("+")[2] for speaker in corpus.SPEAKERS}
    assert len(held_out) == 24
    assert not held_out & known
    assert not of_corpus & (held_out | known)


def test_corpus_and_meeting_are_understood(measured: dict[str, dict[str, float]]) -> None:
    assert measured["transcribe"]["wer"] < WER
    assert measured["classify"]["accuracy"] > ACCURACY
    assert measured["diarize"]["der"] < DER
    assert measured["embed"]["eer"] < EER


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
