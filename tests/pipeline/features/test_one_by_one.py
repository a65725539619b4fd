"""A block that is tried again, clip by clip, makes the same tables: some may be on their way already."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import soundfile

from pipeline import schema
from pipeline.features.stage import FeatureOptions, Featurizer
from pipeline.features.windows import WindowPlan
from pipeline.storage import Storage, StorageOptions
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

NOTHING = pa.schema([])


def wav(samples: int) -> bytes:
    file = io.BytesIO()
    audio = np.random.default_rng(samples).standard_normal(samples) * 0.1
    soundfile.write(file, audio, 16000, format="WAV")
    return file.getvalue()


def test_tables_are_the_same_and_rows_are_told_in_turn() -> None:
    short, long = wav(800), wav(16000 * 5)
    audio = [*[short] * 10, long, b"junk", *[short] * 270, long, long, short]
    clips = pa.Table.from_pylist(
        [{"clip_id": f"c{number}", "shard": "s", "audio": one} for number, one in enumerate(audio)],
        schema=schema.read_schema(NOTHING),
    )
    featurize = Featurizer(
        SeamlessM4TFeatureExtractor(),
        Storage(StorageOptions()),
        NOTHING,
        WindowPlan(frames=100, overlap=20),
        FeatureOptions(),
    )
    expected = list(featurize(clips))
    assert [table.num_rows for table in expected] == [10, 1, 256, 15, 1, 1, 1]
    told: list[int] = []
    found = featurize(clips, told.append)
    for table, wanted in zip(found, expected, strict=True):
        assert table.equals(wanted)
        assert told == list(range(len(told)))
        assert (
            len(told) <= int(wanted["clip_id"][-1].as_py()[1:]) + 2
        )  # a long one closes the table before it
    assert len(told) == len(audio)
