"""`--vad silero`: what the network of silero-vad takes for speech."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from pipeline.audio.recording import decode
from pipeline.audio.vad import Span, load_detector, speech_of
from pipeline.errors import JobError
from tests.conftest import ROOT

RATE = 16_000


def noise(seconds: float, level_db: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (10 ** (level_db / 20) * samples).astype(np.float32)


def spoken() -> np.ndarray:
    """A demo clip, at -20 dB below full scale."""
    samples = decode((ROOT / "demo" / "audio" / "clip-0.flac").read_bytes()).samples
    return (0.5 * samples / np.abs(samples).max()).astype(np.float32)


def detect(samples: np.ndarray, name: str = "silero", block: int = 100_000) -> list[Span]:
    detector = load_detector(name)()
    for first in range(0, len(samples), block):
        detector.add(samples[first : first + block])
    return speech_of(detector, len(samples) / RATE)


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    if "monkeypatch" not in request.fixturenames:
        pytest.importorskip("silero_vad")


def test_speech_is_found_and_a_noise_is_not() -> None:
    speech, seconds = spoken(), len(spoken()) / RATE
    # A rattle as loud as the voice: the energy detector cannot tell them apart.
    samples = np.concatenate(
        [noise(2.0, -70), noise(1.0, -20, 1), noise(2.0, -70, 2), speech, noise(2.0, -70, 3)]
    )
    found = detect(samples)
    assert found[0][0] > 4.0
    assert found[0][0] == pytest.approx(5.0, abs=0.5)
    assert found[-1][1] == pytest.approx(5.0 + seconds, abs=0.7)
    rattle = detect(samples, "energy")[0]
    assert rattle[0] < 2.0 < 3.0 < rattle[1]


def test_in_any_blocks_and_one_after_another_the_same() -> None:
    samples = np.concatenate([noise(1.0, -60), spoken(), noise(1.003, -60, 1)])
    whole = detect(samples, block=len(samples))
    assert whole
    assert detect(samples, block=777) == whole
    assert detect(samples, block=16_001) == whole


def test_silence_is_nothing() -> None:
    assert detect(np.zeros(RATE * 3, np.float32)) == []
    assert detect(np.zeros(0, np.float32)) == []
    assert detect(noise(0.01, -60)) == []


def test_without_the_package_the_job_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "pipeline.audio.vad.find_spec", lambda name: None if name == "silero_vad" else found(name)
    )
    with pytest.raises(
        JobError, match=r"--vad silero needs the package silero-vad: pip install 'w2vbert\[vad\]'"
    ):
        load_detector("silero")
