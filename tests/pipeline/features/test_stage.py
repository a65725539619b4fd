"""The featurize stage: features against the extractor, and error rows in place of dead batches."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from fsspec.implementations.local import LocalFileSystem

from pipeline import schema
from pipeline.audio.recording import decode
from pipeline.errors import Code, JobError, Stage
from pipeline.features import stage as featurize
from pipeline.features.rows import bytes_at
from pipeline.features.stage import FeatureOptions, Featurizer
from pipeline.features.windows import WindowPlan
from pipeline.storage import Storage, StorageOptions
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

PASSTHROUGH = pa.schema([("speaker", pa.string())])
EXTRACTOR = SeamlessM4TFeatureExtractor()


def noise(samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)


def wav(samples: np.ndarray, rate: int = 16000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def read_table(*rows: dict[str, Any]) -> pa.Table:
    filled = [{"clip_id": f"s#{n}", "shard": "s", "speaker": f"p{n}", **row} for n, row in enumerate(rows)]
    return pa.Table.from_pylist(filled, schema=schema.read_schema(PASSTHROUGH))


PLAN = WindowPlan(frames=3000, overlap=200)  # a minute


def featurizer(**options: Any) -> Featurizer:
    plan = options.pop("plan", PLAN)
    settings = FeatureOptions(**{"max_duration_s": 120.0, **options})
    return Featurizer(EXTRACTOR, Storage(StorageOptions()), PASSTHROUGH, plan, settings)


def rows_of(*rows: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    tables = list(featurizer(**options)(read_table(*rows)))
    assert all(table.schema == schema.feature_schema(PASSTHROUGH) for table in tables)
    return pa.concat_tables(tables).to_pylist()


@pytest.mark.parametrize("half", [False, True])
def test_features_are_the_extractors(half: bool) -> None:
    samples = noise(16000 + 160)  # 99 fbank frames: the last stacked one is partial
    (row,) = rows_of({"audio": wav(samples), "extra": '{"a": 1}'}, half=half)
    wanted = EXTRACTOR.extract(samples, keep_partial=True)
    features = np.frombuffer(row["features"], np.float16 if half else np.float32).reshape(row["frames"], 160)
    np.testing.assert_array_equal(features, wanted.astype(features.dtype))
    assert (row["frames"], row["num_valid"]) == (50, 49)
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
        (Stage.READ, Code.NOT_A_FILE),
        (Stage.READ, Code.NOT_A_FILE),
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
    assert (row["frames"], row["num_valid"], row["error"]) == (50, 49, None)
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
    extract = SeamlessM4TFeatureExtractor.extract_with_statistics

    def moody(self: SeamlessM4TFeatureExtractor, waveform: np.ndarray, **options: Any) -> Any:
        if len(waveform) == 5000:
            raise RuntimeError("no")
        return extract(self, waveform, **options)

    monkeypatch.setattr(SeamlessM4TFeatureExtractor, "extract_with_statistics", moody)
    good, bad = rows_of({"audio": wav(noise(6000))}, {"audio": wav(noise(5000))})
    assert good["error"] is None
    assert (bad["error"]["stage"], bad["error"]["message"]) == ("featurize", "RuntimeError: no")


def features_of(row: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(row["features"], np.float32).reshape(-1, 160)


def speech(seconds: float) -> np.ndarray:
    """Two seconds of noise in every five, with next to nothing between them."""
    samples = noise(round(seconds * 16000))
    return samples * np.where(np.arange(len(samples)) % 80000 < 32000, 1, 1e-3).astype(np.float32)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_long_recording_is_the_extractors_too(rate: int) -> None:
    samples = noise(100 * rate + 7)
    (row,) = rows_of({"audio": wav(samples, rate)})
    wanted = EXTRACTOR.extract(decode(wav(samples, rate)).samples, keep_partial=True)
    np.testing.assert_allclose(features_of(row), wanted, atol=1e-4)
    assert (row["frames"], row["num_valid"]) == (4999, 4999)
    assert row["duration_s"] == len(samples) / rate
    assert row["windows"] == [
        {"start": 0, "frames": 2600, "at": 0},
        {"start": 2400, "frames": 2599, "at": 2400},
    ]


def test_a_long_recording_is_a_table_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(wav(noise(70 * 16000)))
    short = {"audio": wav(noise(8000))}
    table = read_table(short, short, {"source": str(path)}, {"source": f"file://{path}"}, short, short)
    tables = list(featurizer()(table))
    assert [len(part) for part in tables] == [2, 1, 1, 2]
    rows = pa.concat_tables(tables).to_pylist()
    assert [row["speaker"] for row in rows] == [f"p{n}" for n in range(6)]
    assert rows[2]["features"] == rows[3]["features"]
    assert len(rows[2]["windows"]) == 2


def test_long_recordings_fail_as_short_ones_do(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    cut = wav(noise(100 * 16000))
    path.write_bytes(cut[: 90 * 64000])
    bad = noise(100 * 16000)
    bad[-5] = np.nan
    rows = rows_of(
        {"source": str(path)},
        {"source": f"file://{path}"},
        {"audio": wav(bad)},
        {"audio": wav(noise(121 * 16000))},
        {"audio": wav(noise(8000))},
    )
    assert [row["error"] and row["error"]["code"] for row in rows] == [
        Code.TRUNCATED,
        Code.TRUNCATED,
        Code.NON_FINITE,
        Code.TOO_LONG,
        None,
    ]
    assert all(row["features"] is row["windows"] is row["frames"] is None for row in rows[:4])
    (unlimited,) = rows_of({"audio": wav(noise(121 * 16000))}, max_duration_s=None)
    assert unlimited["error"] is None


def test_a_source_that_breaks_in_mid_stream_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(wav(noise(100 * 16000)))

    class Breaking(io.FileIO):
        size = 1 << 30

        def read(self, size: int = -1) -> bytes:
            if self.tell() > 5_000_000:
                raise RuntimeError("connection lost")
            return super().read(size)

    monkeypatch.setattr(LocalFileSystem, "open", lambda *_, **__: Breaking(path))
    (row,) = rows_of({"source": str(path)})
    assert (row["error"]["stage"], row["error"]["code"]) == (Stage.READ, Code.UNREADABLE)
    assert "connection lost" in row["error"]["message"]


def test_long_silence_has_frames_but_no_features() -> None:
    (row,) = rows_of({"audio": wav(np.zeros(100 * 16000, np.float32))})
    assert (row["frames"], row["features"], row["windows"], row["error"]) == (4999, None, [], None)


@pytest.mark.parametrize("seconds", [12.0, 100.0])
def test_speech_only(seconds: float) -> None:
    samples = speech(seconds)
    (row,) = rows_of({"audio": wav(samples)}, vad="energy", plan=WindowPlan(3000, 200, align=8))
    assert row["frames"] == EXTRACTOR.num_frames(len(samples))
    energies = EXTRACTOR.fbank(samples)
    frames = [
        frame
        for window in row["windows"]
        for frame in range(2 * window["start"], 2 * (window["start"] + window["frames"]))
    ]
    assert frames == sorted(set(frames))
    assert all(window["start"] % 8 == 0 for window in row["windows"])
    assert len(row["windows"]) == -(-seconds // 5)
    for index, window in enumerate(row["windows"]):
        speech_begins, speech_ends = index * 250, index * 250 + 100
        assert speech_begins - 20 < window["start"] <= max(0, speech_begins - 9)
        stop = window["start"] + window["frames"]
        assert min(speech_ends + 9, row["frames"]) <= stop < speech_ends + 20
    kept = energies[:, frames]
    wanted = (kept - kept.mean(axis=1, keepdims=True)) / kept.std(axis=1, ddof=1, keepdims=True)
    np.testing.assert_allclose(features_of(row), wanted.T.reshape(-1, 160), atol=1e-4)
    ats = np.cumsum([0, *(window["frames"] for window in row["windows"])])
    assert [window["at"] for window in row["windows"]] == ats[:-1].tolist()


def test_no_speech_is_no_error() -> None:
    rows = rows_of(
        {"audio": wav(np.zeros(16160, np.float32))},
        {"audio": wav(np.tile(np.float32([1e-5, -1e-5]), 8000))},
        {"audio": wav(np.zeros(100, np.float32))},
        {"audio": wav(noise(16000))},
        vad="energy",
    )
    assert [(row["frames"], row["windows"], row["features"]) for row in rows[:2]] == [
        (50, [], None),
        (49, [], None),
    ]
    assert rows[2]["error"]["code"] == Code.TOO_SHORT
    assert rows[3]["windows"] == [{"start": 0, "frames": 49, "at": 0}]
    np.testing.assert_allclose(
        features_of(rows[3]), EXTRACTOR.extract(noise(16000), keep_partial=True), atol=1e-4
    )


class Bookend:
    """A detector that hears speech in the first and the last half second, or fails as it is told."""

    answer: Any = None

    def __init__(self) -> None:
        self.samples = 0

    def add(self, samples: np.ndarray) -> None:
        assert samples.dtype == np.float32
        self.samples += len(samples)

    def finish(self) -> Any:
        if self.answer is not None:
            return self.answer
        end = self.samples / 16000
        return [(end - 0.5, end), (0.0, 0.5)]


def test_a_detector_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{__name__}:Bookend"
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    (row,) = rows_of({"audio": wav(noise(80160))}, vad=name)  # 5.01 s: 250 frames, the last one partial
    assert (row["frames"], row["num_valid"]) == (250, 249)
    assert row["windows"] == [{"start": 0, "frames": 25, "at": 0}, {"start": 225, "frames": 25, "at": 25}]
    monkeypatch.setattr(Bookend, "answer", [(3.0, 2.0)])
    bad, short = rows_of({"audio": wav(noise(80000))}, {"audio": wav(noise(100))}, vad=name)
    assert (bad["error"]["stage"], bad["error"]["code"]) == (Stage.FEATURIZE, Code.MODEL_FAILED)
    assert "no speech from 3 s to 2 s" in bad["error"]["message"]
    assert short["error"]["code"] == Code.TOO_SHORT
    with pytest.raises(JobError, match="--vad absent:Detector"):
        featurizer(vad="absent:Detector")


def test_audio_is_decoded_where_arrow_has_it() -> None:
    values = [b"first", None, b"", b"the last"]
    arrays = pa.array(values, pa.large_binary()), pa.nulls(2, pa.large_binary())
    column = pa.chunked_array([arrays[0].slice(1), arrays[1], arrays[0]])
    cells = [bytes_at(column, row) for row in range(len(column))]
    assert [cell and cell.to_pybytes() for cell in cells] == column.to_pylist()
    data = arrays[0].buffers()[2]
    assert [cells[i].address - data.address for i in (2, 5, 8)] == [5, 0, 5]
