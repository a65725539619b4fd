"""Audio inside the page: what the input holds, small, up to a limit."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.audio.recording import Recording
from pipeline.corpus.clips import Shard
from pipeline.corpus.readers import READERS
from pipeline.report import audio
from pipeline.report.audio import sounds
from pipeline.storage import Storage, StorageOptions
from tests.pipeline.report.tables import CLIPS, CORPUS

STORAGE = Storage(StorageOptions())


def clip(clip_id: str, seconds: float | None = None, shard: str | None = None) -> dict[str, Any]:
    return {"id": clip_id, "shard": shard or str(CORPUS / clip_id.partition("#")[0]), "seconds": seconds}


def decoded(opus: bytes | None) -> np.ndarray:
    assert opus is not None
    samples, rate = soundfile.read(io.BytesIO(opus), dtype="float32")
    assert rate == 16_000
    return np.asarray(samples)


def test_every_layout_is_read_again() -> None:
    clips = [clip(clip_id, seconds) for clip_id, seconds, *_ in CLIPS]
    found = sounds(clips, STORAGE, "mean", 1_000_000)
    assert list(found) == [clip_id for clip_id, *_ in CLIPS]
    for clip_id, seconds, *_ in CLIPS:
        assert len(decoded(found[clip_id].opus)) / 16_000 == pytest.approx(seconds, abs=0.002), clip_id
        assert found[clip_id].note == ""


def test_it_is_that_clip_and_small() -> None:
    found = sounds([clip("loose/lossless.flac#lossless", 2.2)], STORAGE, "mean", 1_000_000)
    sound = found["loose/lossless.flac#lossless"]
    with Recording((CORPUS / "loose/lossless.flac").read_bytes()) as recording:
        samples = recording.whole()
    heard = decoded(sound.opus)[: len(samples)]
    assert np.corrcoef(heard, samples[: len(heard)])[0, 1] > 0.95
    assert sound.opus is not None
    assert len(sound.opus) < 2.3 * 4_000
    assert sound.href == (CORPUS / "loose/lossless.flac").as_uri()


def test_the_first_clips_are_inside_as_far_as_there_is_room() -> None:
    lengths = {
        "manifest/list.jsonl#1": 1.765,
        "loose/telephone.wav#telephone": 3.2,
        "loose/podcast.mp3#podcast": 2.0,
    }
    clips = [clip(clip_id, seconds) for clip_id, seconds in lengths.items()]
    found = sounds(clips, STORAGE, "mean", round((1.765 + 2.0) * 3_000) + 1)
    assert [sound.opus is not None for sound in found.values()] == [True, False, True]
    telephone = found["loose/telephone.wav#telephone"]
    assert telephone.href == (CORPUS / "loose/telephone.wav").as_uri()
    assert telephone.note == "the page has no room left for it"


def test_nothing_is_read_where_nothing_is_wanted(tmp_path: Path) -> None:
    gone = clip("a.tar#1", 1.0, str(tmp_path / "a.tar"))
    assert sounds([gone], STORAGE, "mean", 0)["a.tar#1"].note == "the page has no room left for it"


def test_of_a_long_recording_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "LONGEST_S", 1.5)
    found = sounds([clip("loose/telephone.wav#telephone", 3.2)], STORAGE, "mean", 1_000_000)
    sound = found["loose/telephone.wav#telephone"]
    assert len(decoded(sound.opus)) == 24_000
    assert sound.note == "the first 0.025 minutes"


def test_one_channel_as_the_job_took_it(tmp_path: Path) -> None:
    tone = np.sin(np.arange(16_000) / 10) / 2
    soundfile.write(tmp_path / "two.wav", np.stack([tone, np.zeros_like(tone)], axis=1), 16_000)
    told = clip("two.wav#two", 1.0, str(tmp_path / "two.wav"))
    left, right = (
        decoded(sounds([told], STORAGE, side, 10_000)["two.wav#two"].opus) for side in ("left", "right")
    )
    assert np.abs(left).max() > 0.3
    assert np.abs(right).max() < 0.01


@pytest.mark.parametrize(
    ("clip_id", "shard", "note"),
    [
        ("gone.tar#1", "gone.tar", "the input cannot be read any more: .*gone.tar does not exist"),
        ("bad.wav#bad", "bad.wav", "."),
        ("list.jsonl#1", "list.jsonl", ".*nowhere.wav does not exist"),
        ("list.jsonl#7", "list.jsonl", "it is not in the input any more"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, clip_id: str, shard: str, note: str) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no audio at all, but something")
    (tmp_path / "list.jsonl").write_text('{"audio_filepath": "nowhere.wav"}\n')
    found = sounds([clip(clip_id, 1.0, str(tmp_path / shard))], STORAGE, "mean", 10_000)[clip_id]
    assert found.opus is None
    assert re.match(note, found.note)


def test_of_a_parquet_only_row_groups_with_wanted_rows_are_read(tmp_path: Path) -> None:
    table = pa.table({"audio": pa.array([b"x"] * 10, pa.binary())})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    uri = str(tmp_path / "a.parquet")
    shard = Shard(uri, "a.parquet", "parquet", 1, "")
    reader = READERS["parquet"]
    held = reader.slices_with(shard, STORAGE, ["a.parquet#0", "a.parquet#2", "a.parquet#9"])
    assert held == [range(0, 1), range(3, 4)]
    assert reader.slices_with(shard, STORAGE, ["a.parquet#3"]) == [range(1, 2)]
    assert reader.slices_with(shard, STORAGE, ["a.parquet#10", "a.parquet#part-1"]) == []
