"""The demo corpus holds what `demo/README.md` and the pipeline's issue promise."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

DEMO = Path(__file__).resolve().parents[2] / "demo"
DIGITS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}


@dataclass(frozen=True)
class Clip:
    key: str
    audio: bytes
    text: str
    speaker: str
    offset: float = 0.0
    duration: float | None = None  # None: to the end

    def waveform(self) -> tuple[np.ndarray, int]:
        samples, rate = soundfile.read(io.BytesIO(self.audio), always_2d=True)
        start = round(self.offset * rate)
        stop = None if self.duration is None else start + round(self.duration * rate)
        return samples[start:stop], rate


def read_parquet(demo: Path) -> list[Clip]:
    rows = pq.read_table(demo / "corpus/parquet/train-00000-of-00001.parquet").to_pylist()
    return [Clip(row["audio"]["path"], row["audio"]["bytes"], row["text"], row["speaker"]) for row in rows]


def read_webdataset(demo: Path) -> list[Clip]:
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(demo / "corpus/webdataset/shard-000000.tar") as tar:
        for member in tar:
            key, extension = member.name.split(".", 1)
            samples.setdefault(key, {})[extension] = tar.extractfile(member).read()  # type: ignore[union-attr]
    clips = []
    for key, parts in samples.items():
        text, speaker = parts.pop("txt").decode(), json.loads(parts.pop("json"))["speaker"]
        (audio,) = parts.values()
        clips.append(Clip(key, audio, text, speaker))
    return clips


def read_loose(demo: Path) -> list[Clip]:
    with (demo / "references.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    files = [demo / "corpus" / row["path"] for row in rows]
    return [
        Clip(file.name, file.read_bytes(), row["text"], row["speaker"])
        for file, row in zip(files, rows, strict=True)
    ]


def read_manifest(demo: Path) -> list[Clip]:
    manifest = demo / "corpus/manifest/list.jsonl"
    clips = []
    for entry in map(json.loads, manifest.read_text().splitlines()):
        audio = (manifest.parent / entry["audio_filepath"]).read_bytes()
        key = f"{Path(entry['audio_filepath']).name}@{entry['offset']}"
        fields = (entry["text"], entry["speaker"], entry["offset"], entry["duration"])
        clips.append(Clip(key, audio, *fields))
    return clips


READERS = {
    "parquet": (read_parquet, 10),
    "webdataset": (read_webdataset, 8),
    "loose": (read_loose, 6),
    "manifest": (read_manifest, 6),
}


def read_all(demo: Path) -> dict[str, Clip]:
    return {f"{layout}/{clip.key}": clip for layout, (read, _) in READERS.items() for clip in read(demo)}


@pytest.mark.parametrize("layout", READERS)
def test_each_layout_has_its_clips_with_references(layout: str) -> None:
    read, count = READERS[layout]
    clips = read(DEMO)
    assert len(clips) == len({clip.key for clip in clips}) == count
    for clip in clips:
        assert set(clip.text.split()) <= DIGITS
        assert clip.text
        assert clip.speaker.startswith("en-")


def test_exactly_one_clip_is_broken() -> None:
    broken = []
    for name, clip in read_all(DEMO).items():
        try:
            clip.waveform()
        except soundfile.LibsndfileError:
            broken.append(name)
    assert broken == ["webdataset/000004"]


def test_audible_clips_last_as_long_as_their_texts_need() -> None:
    long = []
    for name, clip in read_all(DEMO).items():
        if name == "webdataset/000004":
            continue
        samples, rate = clip.waveform()
        seconds, words = len(samples) / rate, len(clip.text.split())
        assert 0.25 < seconds / words < 1.0, name
        assert 0.1 < np.abs(samples).max() < 1.1, name  # lossy formats overshoot
        if clip.duration is not None:
            assert seconds == pytest.approx(clip.duration, abs=1e-3), name
        if seconds > 10:
            assert 40 <= seconds <= 60, name
            long.append(name)
    assert long == ["parquet/clip-05.mp3", "webdataset/000002"]


def test_formats_rates_and_channels_vary() -> None:
    found = set()
    for path in sorted((DEMO / "corpus/loose").iterdir()):
        info = soundfile.info(path)
        found.add((info.format, info.subtype, info.samplerate, info.channels))
    assert found == {
        ("WAV", "PCM_16", 22_050, 1),
        ("WAV", "ULAW", 8_000, 1),
        ("FLAC", "PCM_16", 16_000, 1),
        ("OGG", "VORBIS", 44_100, 2),
        ("OGG", "OPUS", 16_000, 1),
        ("MP3", "MPEG_LAYER_III", 16_000, 1),
    }


def test_every_speaker_is_heard_in_several_layouts() -> None:
    layouts: dict[str, set[str]] = {}
    for name, clip in read_all(DEMO).items():
        layouts.setdefault(clip.speaker, set()).add(name.split("/")[0])
    assert len(layouts) == 6
    assert all(len(found) >= 3 for found in layouts.values())


def test_no_clip_lies_twice_in_the_corpus() -> None:
    """Audio that a manifest lists must not also be found as a loose file."""
    loose = {path.name for path in (DEMO / "corpus/loose").iterdir()}
    assert loose == {clip.key for clip in read_loose(DEMO)}
    assert sorted(path.name for path in (DEMO / "corpus/manifest").iterdir()) == ["list.jsonl"]
    audio = [clip.audio for name, clip in read_all(DEMO).items() if not name.startswith("manifest")]
    assert len(audio) == len(set(audio))


def test_datasets_takes_the_parquet_shard_for_audio(tmp_path: Path) -> None:
    shard = str(DEMO / "corpus/parquet/train-00000-of-00001.parquet")
    table = datasets.load_dataset("parquet", data_files=shard, split="train", cache_dir=str(tmp_path))
    assert table.features["audio"] == datasets.Audio(sampling_rate=16_000)
    assert table["text"] == [clip.text for clip in read_parquet(DEMO)]


def test_corpus_is_small() -> None:
    folders = (DEMO / "corpus", DEMO / "audio")
    assert sum(path.stat().st_size for folder in folders for path in folder.rglob("*")) < 2_000_000


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_script_makes_the_committed_corpus(tmp_path: Path) -> None:
    """Other versions of espeak-ng give other samples, but the same clips, texts and speakers."""
    subprocess.run([sys.executable, DEMO / "make_corpus.py", tmp_path], check=True)

    def described(demo: Path) -> list[tuple[str, str, str]]:  # offsets follow the synthesiser's pace
        return [(name.split("@")[0], clip.text, clip.speaker) for name, clip in read_all(demo).items()]

    assert described(tmp_path) == described(DEMO)
