"""The featurize stage: features against the extractor, and error rows in place of dead batches."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from pipeline import featurize, schema
from pipeline.errors import Code, Stage
from pipeline.featurize import Featurizer
from pipeline.storage import Storage, StorageOptions
from pipeline.windows import WindowPlan
from w2vbert.features import SeamlessM4TFeatureExtractor

CARRIED = pa.schema([("speaker", pa.string())])
EXTRACTOR = SeamlessM4TFeatureExtractor()


def noise(samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)


def wav(samples: np.ndarray, rate: int = 16000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def read_table(*rows: dict[str, Any]) -> pa.Table:
    filled = [{"clip_id": f"s#{n}", "shard": "s", "speaker": f"p{n}", **row} for n, row in enumerate(rows)]
    return pa.Table.from_pylist(filled, schema=schema.read_schema(CARRIED))


PLAN = WindowPlan(frames=3000, overlap=200)  # a minute


def featurizer(**options: Any) -> Featurizer:
    settings = {"channel": "mean", "max_duration_s": 120.0, "half": False, "plan": PLAN, "vad": None}
    return Featurizer(EXTRACTOR, Storage(StorageOptions()), CARRIED, **{**settings, **options})


def rows_of(*rows: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    tables = list(featurizer(**options)(read_table(*rows)))
    assert all(table.schema == schema.feature_schema(CARRIED) for table in tables)
    return pa.concat_tables(tables).to_pylist()


@pytest.mark.parametrize("half", [False, True])
def test_features_are_the_extractors(half: bool) -> None:
    samples = noise(16000 + 160)  # 99 fbank frames: the last stacked one is partial
    (row,) = rows_of({"audio": wav(samples), "extra": '{"a": 1}'}, half=half)
    wanted = EXTRACTOR.extract(samples, keep_partial=True)
    features = np.frombuffer(row["features"], np.float16 if half else np.float32).reshape(row["frames"], 160)
    np.testing.assert_array_equal(features, wanted.astype(features.dtype))
    assert (row["frames"], row["attended"]) == (50, 49)
    assert (row["duration_s"], row["sample_rate"], row["channels"]) == (1.01, 16000, 1)
    assert (row["clip_id"], row["speaker"], row["extra"]) == ("s#0", "p0", '{"a": 1}')
    assert row["windows"] == [{"start": 0, "frames": 50, "at": 0}]
    assert row["error"] is None


def test_a_bad_clip_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    known = {"stage": "read", "code": "bad_record", "message": "line 3"}
    rows = rows_of(
        {"audio": wav(noise(8000))},
        {"error": known},
        {"audio": b"junk" * 50},
        {"audio": wav(noise(300))},
        {"source": str(tmp_path / "absent.wav")},
        {},
        {"source": str(tmp_path)},
        {"source": "nonsense://bucket/a.wav"},
        {"audio": wav(noise(8000))},
    )
    errors = [row["error"] and (row["error"]["stage"], row["error"]["code"]) for row in rows]
    assert errors == [
        None,
        (Stage.READ, Code.BAD_RECORD),
        (Stage.DECODE, Code.UNDECODABLE),
        (Stage.FEATURIZE, Code.TOO_SHORT),
        (Stage.READ, Code.NOT_FOUND),
        (Stage.READ, Code.NO_AUDIO),
        (Stage.READ, Code.UNREADABLE),
        (Stage.READ, Code.UNREADABLE),
        None,
    ]
    assert rows[1]["error"] == known
    short = rows[3]
    assert str(EXTRACTOR.minimum_samples) in short["error"]["message"]
    assert (short["duration_s"], short["sample_rate"], short["features"]) == (300 / 16000, 16000, None)
    assert "absent.wav does not exist" in rows[4]["error"]["message"]
    assert rows[0]["features"] == rows[8]["features"]
    assert [row["speaker"] for row in rows] == [f"p{n}" for n in range(9)]


def test_silence_has_frames_but_no_features() -> None:
    (row,) = rows_of({"audio": wav(np.zeros(16160, np.float32))})
    assert row["windows"] == []
    assert row["features"] is None
    assert (row["frames"], row["attended"], row["error"]) == (50, 49, None)
    (short,) = rows_of({"audio": wav(np.zeros(100, np.float32))})
    assert short["error"]["code"] == Code.TOO_SHORT


def test_sources_whole_and_in_part(tmp_path: Path) -> None:
    samples = noise(48000)
    path = tmp_path / "long.wav"
    path.write_bytes(wav(samples))
    remote = f"file://{path}"  # has "://": goes through the threads
    part = {"start_s": 1.0, "length_s": 0.5}
    rows = rows_of(
        {"source": str(path)}, {"source": remote}, {"source": str(path), **part}, {"source": remote, **part}
    )
    assert rows[0]["features"] == EXTRACTOR.extract(samples, keep_partial=True).tobytes()
    assert rows[2]["features"] == EXTRACTOR.extract(samples[16000:24000], keep_partial=True).tobytes()
    assert rows[2]["duration_s"] == 0.5
    assert (rows[1]["features"], rows[3]["features"]) == (rows[0]["features"], rows[2]["features"])


def test_tables_are_small_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    table = read_table(*[{"audio": wav(noise(1000 + n))} for n in range(40)])
    monkeypatch.setattr(featurize, "_TABLE_ROWS", 16)
    tables = list(featurizer()(table))
    assert [len(part) for part in tables] == [16, 16, 8]
    assert pa.concat_tables(tables)["speaker"].to_pylist() == [f"p{n}" for n in range(40)]
    one = len(tables[0]["features"][0].as_py())
    monkeypatch.setattr(featurize, "_TABLE_BYTES", 5 * one)
    assert [len(part) for part in featurizer()(table)][:2] == [5, 5]


def test_an_unexpected_failure_is_one_clips_error(monkeypatch: pytest.MonkeyPatch) -> None:
    extract = SeamlessM4TFeatureExtractor.extract

    def moody(self: SeamlessM4TFeatureExtractor, waveform: np.ndarray, **options: Any) -> np.ndarray:
        if len(waveform) == 5000:
            raise RuntimeError("no")
        return extract(self, waveform, **options)

    monkeypatch.setattr(SeamlessM4TFeatureExtractor, "extract", moody)
    good, bad = rows_of({"audio": wav(noise(6000))}, {"audio": wav(noise(5000))})
    assert good["error"] is None
    assert (bad["error"]["stage"], bad["error"]["message"]) == ("featurize", "RuntimeError: no")
