"""Recordings that are played faster or slower, and what the normalisation took away from their features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schema
from pipeline.audio.resampling import resample
from pipeline.errors import Code
from pipeline.features.stage import FeatureOptions, Featurizer
from pipeline.features.windows import WindowPlan
from pipeline.storage import Storage, StorageOptions
from tests.pipeline.features.test_stage import EXTRACTOR, PASSTHROUGH, noise, read_table, speech, wav

RATE = 16_000


def row_of(samples: np.ndarray, rate: int = RATE, **options: Any) -> dict[str, Any]:
    plan = WindowPlan(options.pop("window", 3000), 200)
    settings = FeatureOptions(statistics=True, **options)
    featurizer = Featurizer(EXTRACTOR, Storage(StorageOptions()), PASSTHROUGH, plan, settings)
    tables = list(featurizer(read_table({"audio": wav(samples, rate)})))
    assert tables[0].schema == schema.feature_schema(PASSTHROUGH, statistics=True)
    (row,) = pa.concat_tables(tables).to_pylist()
    return row


def features_of(row: dict[str, Any], dtype: type = np.float32) -> np.ndarray:
    return np.frombuffer(row["features"], dtype).reshape(-1, 160)


def log_mel(row: dict[str, Any], dtype: type = np.float32) -> np.ndarray:
    """What the features were before they were normalised: (bins, frames of fbank)."""
    features = features_of(row, dtype).astype(np.float32).reshape(-1, 80)
    found: np.ndarray = features * np.float32(row["log_mel_std"]) + np.float32(row["log_mel_mean"])
    return found.T


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def peak(row: dict[str, Any]) -> float:
    """Where the loudest mel bin lies, by the parabola through it and its neighbours."""
    mean = np.array(row["log_mel_mean"])
    at = int(np.argmax(mean))
    below, top, above = mean[at - 1 : at + 2]
    return at + 0.5 * (below - above) / (below - 2 * top + above)


@pytest.mark.parametrize("speed", [0.9, 0.95, 1.1])
@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_tempo_and_pitch_move_together(speed: float, rate: int) -> None:
    heard = resample(tone(1000), 16_000) if rate == RATE else tone(1000)[::2]
    row = row_of(heard, rate, speed=speed)
    samples = RATE / speed
    assert row["frames"] == pytest.approx(EXTRACTOR.num_frames(round(samples), keep_partial=True), abs=1)
    assert row["duration_s"] == 1.0
    assert peak(row) == pytest.approx(peak(row_of(tone(1000 * speed))), abs=0.02)
    assert abs(peak(row) - peak(row_of(tone(1000)))) > 0.5


@given(length=st.integers(1_000, 60_000), speed=st.sampled_from([0.8, 0.9, 1.1, 1.25]))
def test_frames_are_those_of_the_longer_or_shorter_recording(length: int, speed: float) -> None:
    row = row_of(noise(length), speed=speed)
    assert row["num_valid"] == EXTRACTOR.num_frames(int(np.ceil(round(length / speed, 6))))
    assert len(features_of(row)) == row["frames"]


def test_at_speed_one_nothing_changes() -> None:
    samples = noise(16_160)
    assert resample(samples, RATE) is samples
    row = row_of(samples, speed=1.0)
    np.testing.assert_array_equal(features_of(row), EXTRACTOR.extract(samples, keep_partial=True))


@pytest.mark.parametrize("half", [False, True])
def test_features_and_statistics_are_the_log_mel_energies(half: bool) -> None:
    samples = speech(3.0)
    row = row_of(samples, half=half)
    raw = EXTRACTOR.fbank(samples)
    found = log_mel(row, np.float16 if half else np.float32)[:, : raw.shape[1]]
    # Half precision is good to 2^-11 of a feature, of which the largest is some deviations.
    bound = np.abs(raw - np.array(row["log_mel_mean"])[:, None]) * 2.0**-11 + 1e-5 if half else 1e-5
    assert (np.abs(found - raw) <= bound).all()


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1])
def test_a_streamed_recording_is_the_same(speed: float) -> None:
    samples = noise(12 * RATE + 7)
    streamed, whole = row_of(samples, speed=speed, window=500), row_of(samples, speed=speed)
    assert [streamed[name] for name in ("frames", "num_valid")] == [
        whole[name] for name in ("frames", "num_valid")
    ]
    assert len(streamed["windows"]) > 1
    np.testing.assert_allclose(features_of(streamed), features_of(whole), atol=1e-3)
    for name in ("log_mel_mean", "log_mel_std"):
        np.testing.assert_allclose(streamed[name], whole[name], atol=1e-4)


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_a_detector_hears_what_is_played(speed: float) -> None:
    row = row_of(speech(12.0), speed=speed, vad="energy")
    assert row["frames"] == EXTRACTOR.num_frames(round(12 * RATE / speed), keep_partial=True)
    found = [(window["start"], window["start"] + window["frames"]) for window in row["windows"]]
    spoken = np.array(found) * 0.02 * speed
    np.testing.assert_allclose(spoken, [(0, 2), (5, 7), (10, 12)], atol=0.6)


def test_silence_and_errors_have_no_statistics() -> None:
    for samples in (np.zeros(RATE, np.float32), noise(300)):
        row = row_of(samples)
        assert (row["features"], row["log_mel_mean"], row["log_mel_std"]) == (None, None, None)
    assert row_of(noise(600), speed=1.0)["error"] is None
    assert row_of(noise(600), speed=1.25)["error"]["code"] == Code.TOO_SHORT
