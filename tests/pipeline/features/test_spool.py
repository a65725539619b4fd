"""Features through a temporary file: those of the extractor, and no memory but a block's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.errors import ClipFailedError, Code
from pipeline.features.spool import FeatureSpool
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

ROOT = Path(__file__).resolve().parents[3]
EXTRACTOR = SeamlessM4TFeatureExtractor(padding_value=0.75)


def noise(samples: int) -> np.ndarray:
    swell = np.sin(np.arange(samples) / 3000)
    return (0.1 * swell * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)


def spooled(samples: np.ndarray, segments: list[tuple[int, int]], dtype: type = np.float32) -> np.ndarray:
    with FeatureSpool(EXTRACTOR, dtype) as spool:
        for first in range(0, len(samples), 100_003):
            spool.add(samples[first : first + 100_003])
        assert spool.num_valid == EXTRACTOR.num_frames(len(samples))
        return np.frombuffer(spool.finish(segments), dtype).reshape(-1, 160)


@pytest.mark.parametrize("samples", [160_000 * 9, 160_000 * 9 + 160, 160_000 * 9 + 300])
def test_the_features_are_the_extractors(samples: int) -> None:
    waveform = noise(samples)
    wanted = EXTRACTOR.extract(waveform, keep_partial=True)
    features = spooled(waveform, [(0, len(wanted))])
    assert features.shape == wanted.shape
    np.testing.assert_allclose(features, wanted, atol=1e-4)
    half = spooled(waveform, [(0, len(wanted))], np.float16)
    np.testing.assert_array_equal(half, features.astype(np.float16))


def test_segments_have_statistics_of_their_own() -> None:
    waveform = noise(160_000 * 9 + 160)  # an odd number of fbank frames: the last stacked one is partial
    energies = EXTRACTOR.fbank(waveform)
    segments = [(10, 11), (700, 3100), (4000, 4500)]
    rows = np.concatenate([energies[:, 2 * start : 2 * stop] for start, stop in segments], axis=1)
    wanted = (rows - rows.mean(axis=1, keepdims=True)) / rows.std(axis=1, ddof=1, keepdims=True)
    wanted = np.append(wanted.T, np.full((rows.shape[1] % 2, 80), 0.75), axis=0).reshape(-1, 160)
    assert len(wanted) == 2901
    for dtype, tolerance in ((np.float32, 1e-4), (np.float16, 5e-3)):
        np.testing.assert_allclose(spooled(waveform, segments, dtype), wanted, atol=tolerance)


def test_features_that_are_no_numbers() -> None:
    with (
        np.errstate(all="ignore"),
        pytest.raises(ClipFailedError) as caught,
    ):
        spooled(np.full(48_000, 1e38, np.float32) * np.sign(noise(48_000)), [(0, 149)])
    assert caught.value.error.code is Code.NON_FINITE


def test_a_full_disk_is_the_clips_error(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip(f"no {full}")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: full.open("w+b", buffering=0))
    with FeatureSpool(EXTRACTOR, np.float32) as spool, pytest.raises(ClipFailedError) as caught:
        spool.add(noise(16000))
    assert caught.value.error.code is Code.OUT_OF_MEMORY
    assert "TMPDIR" in caught.value.error.message


_MEASURE = """
import json, sys, threading
import pyarrow as pa
from pipeline import schema
from pipeline.features.stage import FeatureOptions, Featurizer
from pipeline.storage import Storage, StorageOptions
from pipeline.features.windows import WindowPlan
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

def anonymous():
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Anonymous:"))

featurizer = Featurizer(SeamlessM4TFeatureExtractor(), Storage(StorageOptions()), pa.schema([]),
    WindowPlan(3000, 200), FeatureOptions(half=True, vad=sys.argv[2] or None))
row = {"clip_id": "long", "shard": "s", "source": sys.argv[1]}
table = pa.Table.from_pylist([row], schema=schema.read_schema(pa.schema([])))
measured, finished = [anonymous()], threading.Event()

def watch():
    while not finished.wait(0.05):
        measured.append(anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
(result,) = featurizer(table)
finished.set()
watcher.join()
measured.append(anonymous())
print(json.dumps({
    "peak": max(measured),
    "bytes": len(result["features"][0].as_buffer()),
    **{name: result[name][0].as_py() for name in ("frames", "windows", "error")},
}))
"""


def measured(path: Path, minutes: int, vad: str) -> dict:
    """Featurizes a recording of so many minutes, each with 36 s of noise, in a process of its own."""
    minute = noise(60 * 8000) + 1e-4
    minute[36 * 8000 :] *= 1e-2
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16") as file:
        for _ in range(minutes):
            file.write(minute)
    command = [sys.executable, "-c", _MEASURE, str(path), vad]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["error"] is None
    path.unlink()
    return result


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux's smaps_rollup")
@pytest.mark.parametrize("vad", ["", "energy"])
def test_ninety_minutes_take_the_memory_of_ten(tmp_path: Path, vad: str) -> None:
    short = measured(tmp_path / "short.wav", 10, vad)
    long = measured(tmp_path / "long.wav", 90, vad)
    assert long["frames"] == (90 * 60 * 100 - 2) // 2
    windows = long["windows"]
    kept = windows[-1]["at"] + windows[-1]["frames"]
    assert long["bytes"] == kept * 160 * 2  # 86 MB without a detector
    assert kept == long["frames"] if not vad else 0.5 < kept / long["frames"] < 0.7
    assert long["peak"] < short["peak"] + 40, (short["peak"], long["peak"])  # MiB
