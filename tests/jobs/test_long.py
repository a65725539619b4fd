"""Recordings longer than a window: every frame once, every word once, one voice per speaker."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from pipeline.audio import recording as audio
from pipeline.job import run
from pipeline.spec import AnnotateSpec, DiarizeSpec, EmbedSpec, TranscribeSpec
from tests.conftest import ROOT, SOAK
from tests.jobs.peers import answer, build, save

pytestmark = pytest.mark.usefixtures("local_ray")
MODEL = ROOT / "demo" / "checkpoint"
RATE, PERIOD_S, HOURS = 8000, 30, 3 if SOAK else 1


def row_of(output: Path) -> dict[str, Any]:
    (row,) = (row for file in output.glob("*.parquet") for row in pq.ParquetFile(file).read().to_pylist())
    assert row["error"] is None
    return row


def utterance(name: str) -> np.ndarray:
    return audio.decode((ROOT / "demo" / "audio" / f"{name}.flac").read_bytes()).samples


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence every half minute, for hours; the file is sparse between the sentences."""
    said = (utterance("clip-0")[::2] * 32767).astype("<i2").tobytes()
    path = tmp_path_factory.mktemp("long") / "day.wav"
    size = HOURS * 3600 * RATE * 2
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, size // 2, "NONE", ""))
        file.writeframes(b"")
    with path.open("r+b") as file:
        file.seek(40)
        file.write(size.to_bytes(4, "little"))
        for start in range(0, HOURS * 3600, PERIOD_S):
            file.seek(44 + (start + 1) * RATE * 2)
            file.write(said)
        file.truncate(44 + size)
    return path


def test_hours_with_silence_left_out(hours: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.wav"
    soundfile.write(alone, (utterance("clip-0")[::2] * 32767).astype("int16"), RATE)
    summary = run(
        TranscribeSpec(input=[str(alone)], output=str(tmp_path / "one"), model=str(MODEL))
    ).as_json()
    said = row_of(tmp_path / "one")["text"]
    assert len(said.split()) == 4

    summary = run(
        TranscribeSpec(input=[str(hours)], output=str(tmp_path / "out"), model=str(MODEL), vad="energy")
    ).as_json()
    row = row_of(tmp_path / "out")
    sentences = HOURS * 3600 // PERIOD_S
    assert row["duration_s"] == HOURS * 3600
    assert row["text"] == " ".join([said] * sentences)
    starts = np.array([word["start_s"] for word in row["words"][::4]])
    np.testing.assert_allclose(np.diff(starts), PERIOD_S, atol=0.05)
    # Silence costs nothing: of half a minute some two seconds are looked at.
    assert summary["encoder"]["frames"] < 0.1 * HOURS * 3600 * 50


def speech(path: Path, seconds: float) -> int:
    """A sentence without end; how often it is said."""
    sentence = np.concatenate([utterance("clip-1"), np.zeros(3200, np.float32)])
    repeats = int(seconds * 16000) // len(sentence)
    with soundfile.SoundFile(path, "w", 16000, 1, "PCM_16") as file:
        for _ in range(repeats):
            file.write(sentence)
    return repeats


def test_hours_of_speech_have_exactly_their_frames(tmp_path: Path) -> None:
    long = tmp_path / "long.flac"
    speech(long, HOURS * 3600)
    tasks = ("classify", "diarize", "embed")
    heads = {
        task: str(save(build(task, hidden_size=24, num_hidden_layers=1), tmp_path / task)) for task in tasks
    }
    summary = run(AnnotateSpec(input=[str(long)], output=str(tmp_path / "out"), **heads)).as_json()
    row = row_of(tmp_path / "out")
    frames = -(-(1 + (soundfile.info(long).frames - 400) // 160) // 2)
    assert len(row["frame_activity"]) == len(row["frame_probabilities"]) == frames
    assert np.array(row["frame_probabilities"]).min() > 0  # no frame without a window
    assert frames < summary["encoder"]["frames"] < 1.2 * frames
    assert row["label"] is not None
    assert np.linalg.norm(row["embedding"]) == pytest.approx(1, abs=1e-6)


def test_words_are_neither_lost_nor_doubled_at_any_seam(tmp_path: Path) -> None:
    """Twenty minutes in windows, against the same sentences in one window."""
    once, long = tmp_path / "once.flac", tmp_path / "long.flac"
    few, many = speech(once, 38), speech(long, 1200)
    words = {}
    for path in (once, long):
        output = tmp_path / path.stem
        run(TranscribeSpec(input=[str(path)], output=str(output), model=str(MODEL), window_s=40))
        words[path.stem] = [word["word"] for word in row_of(output)["words"]]
    sentence = words["once"][: len(words["once"]) // few]
    # The model does not always write the blank between two words that are the same.
    parted = {word * 2: [word] * 2 for word in sentence}
    once, long = (
        [one for word in words[name] for one in parted.get(word, [word])] for name in ("once", "long")
    )
    assert once == sentence * few
    assert long == sentence * many


def test_windows_of_one_sequence_pool_as_one(tmp_path: Path) -> None:
    """With windows that see all they need, embeddings, labels and probabilities are those of one piece."""
    recording = np.concatenate([utterance("session")] * 4)
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, recording, 16000, subtype="FLOAT")
    peers = {task: build(task, num_hidden_layers=0) for task in ("classify", "diarize", "embed")}
    heads = {task: str(save(peer, tmp_path / task)) for task, peer in peers.items()}
    place: dict[str, Any] = {"input": [str(clip)], "window_s": 5.0, "overlap_s": 1.0}
    samples = audio.decode(clip.read_bytes()).samples

    run(AnnotateSpec(output=str(tmp_path / "out"), classify=heads["classify"], embed=heads["embed"], **place))
    row = row_of(tmp_path / "out")
    embedding = answer(peers["embed"], samples).embeddings[0]
    np.testing.assert_allclose(row["embedding"], embedding / torch.linalg.norm(embedding), atol=1e-4)
    scores = answer(peers["classify"], samples).logits[0].softmax(-1)
    assert row["label_score"] == pytest.approx(float(scores.max()), abs=1e-4)

    run(DiarizeSpec(output=str(tmp_path / "speakers"), model=heads["diarize"], **place))
    found = np.array(row_of(tmp_path / "speakers")["frame_probabilities"])
    expected = answer(peers["diarize"], samples).logits[0].sigmoid()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_windows_of_frames_before_an_adapter_pool_as_one(tmp_path: Path) -> None:
    """Against one window: without layers the peer has no hidden states to weigh."""
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, np.concatenate([utterance("session")] * 4), 16000, subtype="FLOAT")
    fields = {"use_weighted_layer_sum": True, "add_adapter": True, "output_hidden_size": 48}
    model = str(save(build("embed", num_hidden_layers=0, **fields), tmp_path / "model"))
    found = {}
    for window_s in (5.0, 120.0):
        output = tmp_path / str(window_s)
        place: dict[str, Any] = {"input": [str(clip)], "output": str(output)}
        run(EmbedSpec(model=model, window_s=window_s, overlap_s=1.0, **place))
        found[window_s] = row_of(output)["embedding"]
    np.testing.assert_allclose(found[5.0], found[120.0], atol=1e-4)
