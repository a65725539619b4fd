"""Make the demo corpus: spoken digit strings in each of the four layouts that the pipeline reads.

    python demo/make_corpus.py [FOLDER]        # needs espeak-ng; FOLDER defaults to demo/

Voices, texts and files are the same on every run. The samples are so for one version of espeak-ng, which is
why the corpus itself is committed; of the Ogg files only the random stream number differs between runs.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from espeak import NATIVE_RATE, RATE, Voice, Waveform, digit_string, phrased, say

SEED = 2
# Training hears other voices than these.
SPEAKERS = ("en-us+f3", "en-us+m4", "en-gb+f5", "en-gb-scotland+m6", "en-gb-x-rp+Andrea", "en-029+m2")
LONG = 102  # words in a long clip, 40 to 60 s

# Marks the schema as one that `datasets` wrote, so that `load_dataset` yields an Audio feature.
HUGGING_FACE_SCHEMA = {
    "info": {
        "features": {
            "audio": {"sampling_rate": RATE, "_type": "Audio"},
            "text": {"dtype": "string", "_type": "Value"},
            "speaker": {"dtype": "string", "_type": "Value"},
        }
    }
}


@dataclass(frozen=True)
class Clip:
    text: str
    speaker: str
    samples: Waveform
    rate: int

    def encoded(self, format: str, **options: Any) -> bytes:
        """The clip as a file of one of libsndfile's formats ("FLAC", "MP3", ...)."""
        out = io.BytesIO()
        soundfile.write(out, self.samples, self.rate, format=format, **options)
        return out.getvalue()


class Studio:
    """Draws one random clip after the other from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.turns = self._take_turns()

    def record(self, words: int | None = None, rate: int = RATE) -> Clip:
        """A clip of `words` words (1 to 6 when not given), the speakers taking turns."""
        speaker = next(self.turns)
        voice = Voice(speaker, speed=int(self.rng.integers(110, 181)), pitch=int(self.rng.integers(35, 66)))
        text = digit_string(self.rng, int(self.rng.integers(1, 7)) if words is None else words)
        return Clip(text, speaker, say(phrased(text, self.rng), voice, rate), rate)

    def _take_turns(self) -> Iterator[str]:
        while True:
            yield from SPEAKERS


def write_parquet(path: Path, studio: Studio) -> None:
    """Ten clips, one of them long, as `datasets` stores audio."""
    rows = []
    for index in range(10):
        clip = studio.record(LONG if index == 5 else None)
        format = "MP3" if index == 5 else "FLAC"  # a long clip would be too large without loss
        audio = {"bytes": clip.encoded(format), "path": f"clip-{index:02}.{format.lower()}"}
        rows.append({"audio": audio, "text": clip.text, "speaker": clip.speaker})
    schema = pa.schema(
        {
            "audio": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
            "text": pa.string(),
            "speaker": pa.string(),
        },
        metadata={"huggingface": json.dumps(HUGGING_FACE_SCHEMA)},
    )
    # Compressed audio does not compress again.
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="none")


def write_webdataset(path: Path, studio: Studio) -> None:
    """Eight clips, one of them long and one broken, as `key.flac` + `key.txt` + `key.json`."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(name)  # its defaults name no time, owner or machine
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))

        for index in range(8):
            clip = studio.record(LONG if index == 2 else None)
            format = "MP3" if index == 2 else "FLAC"
            audio = clip.encoded(format)
            if index == 4:
                audio = studio.rng.bytes(2048)  # the broken one: no decoder will find a header in it
            add(f"{index:06}.{format.lower()}", audio)
            add(f"{index:06}.txt", clip.text.encode())
            add(f"{index:06}.json", json.dumps({"speaker": clip.speaker}).encode())


def write_loose(folder: Path, references: Path, studio: Studio) -> None:
    """Six files of different formats, rates and channel counts; their texts in a table outside the corpus."""
    rows = []

    def save(name: str, clip: Clip, format: str, **options: Any) -> None:
        (folder / name).write_bytes(clip.encoded(format, **options))
        rows.append((f"{folder.name}/{name}", clip.speaker, clip.text))

    save("native-rate.wav", studio.record(2, rate=NATIVE_RATE), "WAV", subtype="PCM_16")
    save("telephone.wav", studio.record(4, rate=8_000), "WAV", subtype="ULAW")
    save("lossless.flac", studio.record(4), "FLAC")
    clip = studio.record(5, rate=44_100)
    left_and_right = np.stack([clip.samples, 0.5 * clip.samples], axis=1)
    save("stereo.ogg", Clip(clip.text, clip.speaker, left_and_right, clip.rate), "OGG", subtype="VORBIS")
    save("speech.opus", studio.record(6), "OGG", subtype="OPUS")
    save("podcast.mp3", studio.record(6), "MP3")
    with references.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("path", "speaker", "text"))
        writer.writerows(rows)


def write_manifest(path: Path, audio: Path, studio: Studio) -> None:
    """Six clips: three files of their own, and three turns of one recorded session, found by their offsets.

    The audio lies outside the corpus: inside it, each file would be found a second time, as a loose one.
    """
    entries: list[dict[str, Any]] = []

    def list_clip(file: str, clip: Clip, offset: float = 0.0) -> None:
        seconds = len(clip.samples) / clip.rate
        entry = {"audio_filepath": f"../../{audio.name}/{file}", "offset": offset, "duration": seconds}
        entries.append(entry | {"text": clip.text, "speaker": clip.speaker})

    for index in range(3):
        clip = studio.record()
        (audio / f"clip-{index}.flac").write_bytes(clip.encoded("FLAC"))
        list_clip(f"clip-{index}.flac", clip)

    pause = np.zeros(RATE // 2, np.float32)
    session = pause
    for _ in range(3):
        turn = studio.record(3)
        list_clip("session.flac", turn, offset=len(session) / RATE)
        session = np.concatenate([session, turn.samples, pause])
    soundfile.write(audio / "session.flac", session, RATE)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def main(demo: Path) -> None:
    corpus, audio = demo / "corpus", demo / "audio"
    for folder in (corpus, audio):
        shutil.rmtree(folder, ignore_errors=True)
    folders = [corpus / layout for layout in ("parquet", "webdataset", "loose", "manifest")]
    for folder in (*folders, audio):
        folder.mkdir(parents=True)
    parquet, webdataset, loose, manifest = folders

    studio = Studio(SEED)
    write_parquet(parquet / "train-00000-of-00001.parquet", studio)
    write_webdataset(webdataset / "shard-000000.tar", studio)
    write_loose(loose, demo / "references.tsv", studio)
    write_manifest(manifest / "list.jsonl", audio, studio)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
