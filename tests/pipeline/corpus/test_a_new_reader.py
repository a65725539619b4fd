"""A format that the pipeline has never heard of, wholly defined here: waveforms in an .npz."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from pipeline.corpus.clips import Clip, Shard
from pipeline.corpus.columns import Passthrough, merge, reserved_names
from pipeline.corpus.listing import discover
from pipeline.corpus.parts import bundles, read_parts, split
from pipeline.corpus.readers import READERS, register
from pipeline.corpus.readers.base import Reader
from pipeline.errors import JobError
from pipeline.features.stage import FeatureOptions, Featurizer
from pipeline.features.windows import WindowPlan
from pipeline.storage import Storage, StorageFile, StorageOptions
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

STORAGE = Storage(StorageOptions())
EXTRACTOR = SeamlessM4TFeatureExtractor()


class NpzReader(Reader):
    """NumPy archives: each array is a clip; `rate` is that of all."""

    name = "npz"
    endings = (".npz",)

    def clips(self, file: StorageFile, shard: Shard, slice: None) -> Iterator[Clip]:
        arrays = np.load(file)
        rate = int(arrays["rate"])
        for key in arrays.files:
            if key != "rate":
                audio = io.BytesIO()
                soundfile.write(audio, arrays[key], rate, format="WAV", subtype="FLOAT")
                values = {"text": f"the words of {key}", "peak": float(np.abs(arrays[key]).max())}
                yield Clip(shard.clip_id(key), shard.uri, audio=audio.getvalue(), values=values)


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Path]:
    """A sound archive, one whose second array is damaged, one that is none, and a loose file."""
    before = dict(READERS)
    register(NpzReader())
    waves = {f"clip{n}": noise(n) for n in range(3)}
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", rate=16_000, **waves)
    place = zipfile.ZipFile(tmp_path / "b.npz").getinfo("clip1.npy").header_offset
    data = bytearray((tmp_path / "b.npz").read_bytes())
    data[place + 1000] ^= 0xFF
    (tmp_path / "b.npz").write_bytes(data)
    (tmp_path / "c.npz").write_bytes(b"no archive")
    soundfile.write(tmp_path / "d.wav", noise(0), 16_000, subtype="FLOAT")
    yield tmp_path
    READERS.clear()
    READERS.update(before)


def noise(seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return (0.1 * np.random.default_rng(seed).standard_normal(8000 + 400 * seed)).astype(np.float32)


def test_its_clips_become_features_and_its_damage_rows(corpus: Path) -> None:
    shards = discover([str(corpus)], STORAGE, outputs=["elsewhere"])
    assert [(shard.name, shard.format) for shard in shards[:2]] == [("a.npz", "npz"), ("b.npz", "npz")]
    schemas = [READERS[shard.format].columns(shard, STORAGE) for shard in shards]
    passthrough = Passthrough(merge(schemas, reserved_names()))
    assert passthrough.schema == pa.schema([("ref_text", pa.string()), ("peak", pa.float64())])
    sent = pickle.dumps(([part for shard in shards for part in split(shard, STORAGE)], passthrough))
    READERS.clear()  # a worker, where only the four formats would be known, looks nothing up
    parts, passthrough = pickle.loads(sent)
    counts: dict[str, int] = {}
    featurizer = Featurizer(EXTRACTOR, STORAGE, passthrough.schema, WindowPlan(3000, 200), FeatureOptions())
    rows = [
        row
        for some in bundles(parts)
        for table in read_parts(
            some,
            STORAGE,
            passthrough,
            finished=lambda part, clips, matched: counts.update({part.shard.name: clips}),
        )
        for features in featurizer(table)
        for row in features.to_pylist()
    ]
    assert [(row["clip_id"], row["error"] and row["error"]["code"]) for row in rows] == [
        ("a.npz#clip0", None),
        ("a.npz#clip1", None),
        ("a.npz#clip2", None),
        ("b.npz#clip0", None),
        ("b.npz#", "broken_shard"),
        ("c.npz#", "broken_shard"),
        ("d.wav#d", None),
    ]
    assert counts == {"a.npz": 3, "b.npz": 2, "c.npz": 1, "d.wav": 1}
    assert rows[4]["error"]["message"].startswith("b.npz is damaged: Bad CRC-32")
    for index, row in enumerate(rows[:3]):
        assert row["features"] == EXTRACTOR.extract(noise(index), keep_partial=True).tobytes()
        assert row["ref_text"] == f"the words of clip{index}"
        assert row["peak"] == float(np.abs(noise(index)).max())


def test_names_and_endings_belong_to_one_reader(corpus: Path) -> None:
    with pytest.raises(ValueError, match="npz: taken by the reader of npz"):
        register(NpzReader())
    (corpus / "empty").mkdir()
    with pytest.raises(JobError, match=r"audio files \(wav, .*\) and \*\.npz"):
        discover([str(corpus / "empty")], STORAGE, outputs=["elsewhere"])
