"""Voice-activity detection: synthetic speech and silence, detectors of one's own, seconds to frames."""

from __future__ import annotations

import sys
import types
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audio.recording import decode
from pipeline.audio.vad import EnergyDetector, Span, kept_frames, load_detector, merged, speech_of
from pipeline.errors import JobError

RATE = 16000


def noise(seconds: float, level_db: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (10 ** (level_db / 20) * samples).astype(np.float32)


def syllables(seconds: float, level_db: float) -> np.ndarray:
    """Noise that swells and fades four times a second, by 30 dB, as speech does."""
    swell = 15 * np.cos(2 * np.pi * 4 * np.arange(round(seconds * RATE)) / RATE) - 15
    return noise(seconds, level_db) * np.float32(10) ** (swell / 20).astype(np.float32)


def detect(samples: np.ndarray, block: int = 100_000) -> list[Span]:
    detector = EnergyDetector()
    for first in range(0, len(samples), block):
        detector.add(samples[first : first + block])
    return speech_of(detector, len(samples) / RATE)


def test_speech_between_silence() -> None:
    speech = syllables(4.0, -20)
    found = detect(np.concatenate([noise(3.0, -70), speech, noise(5.0, -70, 1), speech, noise(2.0, -70, 2)]))
    np.testing.assert_allclose(found, [(2.8, 7.2), (11.8, 16.2)], atol=0.1)


def test_in_any_blocks_the_same() -> None:
    samples = np.concatenate([noise(1.0, -60), syllables(1.5, -20), noise(1.003, -60, 1)])
    whole = detect(samples, len(samples))
    assert whole == detect(samples, 77) == detect(samples, 16001)
    assert len(whole) == 1


@pytest.mark.parametrize("level", [-60, -20, 0])
def test_what_is_steady_is_kept_whole(level: float) -> None:
    assert detect(noise(7.0, level)) == [(0.0, 7.0)]
    assert detect(syllables(7.0, level)) == [(0.0, 7.0)]


def test_digital_silence_is_nothing() -> None:
    assert detect(np.zeros(RATE * 5, np.float32)) == []
    assert detect(np.full(RATE * 5, 0.25, np.float32)) == []
    assert detect(np.zeros(0, np.float32)) == []
    dither = np.random.default_rng(0).integers(-1, 2, RATE).astype(np.float32) / 65536
    assert detect(dither) == []
    gated = np.concatenate([np.zeros(RATE * 3, np.float32), noise(2.0, -30), np.zeros(RATE * 3, np.float32)])
    np.testing.assert_allclose(detect(gated), [(2.8, 5.2)], atol=0.1)


def test_short_pauses_are_kept_and_long_ones_are_not() -> None:
    speech = noise(2.0, -20)
    for pause, segments in ((0.4, 1), (0.7, 2)):
        found = detect(
            np.concatenate([noise(3.0, -70), speech, noise(pause, -70, 1), speech, noise(3.0, -70, 2)])
        )
        assert len(found) == segments


def test_clicks_are_not_speech() -> None:
    samples = np.concatenate([noise(5.0, -70), syllables(2.0, -20), noise(5.0, -70, 1)])
    samples[RATE : RATE + 160] = 0.5
    samples[2 * RATE : 2 * RATE + 320] = 0.9
    np.testing.assert_allclose(detect(samples), [(4.8, 7.2)], atol=0.1)


def test_a_faint_voice_beside_a_loud_one_is_heard() -> None:
    samples = np.concatenate(
        [noise(3.0, -75), noise(2.0, -15), noise(3.0, -75, 1), noise(2.0, -50), noise(1.0, -75)]
    )
    np.testing.assert_allclose(detect(samples), [(2.8, 5.2), (7.8, 10.2)], atol=0.1)


def test_real_speech(shared_data: Path) -> None:
    """Each word of the reference speakers is inside; a meeting's silence at the start is outside."""
    speech = detect(decode((shared_data / "meeting" / "dev00.wav").read_bytes()).samples)
    assert 0 < speech[0][0] < 2.13  # where the first speaker begins
    turns = [line.split() for line in (shared_data / "meeting" / "dev00.rttm").read_text().splitlines()]
    kept = np.zeros(3000, bool)
    for start, stop in speech:
        kept[round(start * 100) : round(stop * 100)] = True
    said = np.zeros(3000, bool)
    for turn in turns:
        said[round(float(turn[3]) * 100) : round((float(turn[3]) + float(turn[4])) * 100)] = True
    assert (kept & said).sum() / said.sum() > 0.9


class Scripted:
    """A detector that answers what it is told to."""

    answer: object = ()

    def add(self, samples: np.ndarray) -> None:
        pass

    def finish(self) -> object:
        return self.answer


def test_load(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("detectors")
    monkeypatch.setitem(sys.modules, "detectors", module)
    module.Good = Scripted
    module.NoFinish = type("NoFinish", (), {"add": lambda self, samples: None})
    module.Picky = type("Picky", (Scripted,), {"__init__": lambda self, threshold: None})
    module.value = 3
    assert load_detector("energy") is EnergyDetector
    assert load_detector("detectors:Good") is Scripted
    for name, words in {
        "absent_module:Detector": "absent_module cannot be imported",
        "detectors:Absent": "detectors has no Absent",
        "detectors:NoFinish": "no method finish",
        "detectors:Picky": "threshold",
        "detectors:value": "not a class",
    }.items():
        with pytest.raises(JobError, match=words) as caught:
            load_detector(name)
        assert str(caught.value).startswith(f"--vad {name}: ")


def test_a_module_that_fails_to_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_detector.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(JobError, match=r"broken_detector cannot be imported \(RuntimeError: no licence\)"):
        load_detector("broken_detector:Detector")


def test_what_a_detector_answers_is_put_in_order() -> None:
    detector = Scripted()
    detector.answer = [(5, 6), (-1, 0.5), (5.5, 99), np.array([2.0, 3.0]), (3.0, 3.5), (40, 50), (4, 4)]
    assert speech_of(detector, 10.0) == [(0.0, 0.5), (2.0, 3.5), (5.0, 10.0)]
    for nonsense in ([(2, 1)], [(0, float("nan"))], [(float("inf"), float("inf"))], [3], ["ab"], [(1, 2, 3)]):
        detector.answer = nonsense
        with pytest.raises(ValueError, match=r"is no \(start|there is no speech"):
            speech_of(detector, 10.0)
    detector.answer = None
    with pytest.raises(TypeError):
        speech_of(detector, 10.0)


@given(
    speech=st.lists(st.tuples(st.floats(0, 20), st.floats(0.001, 5)), max_size=6),
    rows=st.integers(2, 1000),
    align=st.sampled_from([1, 2, 4, 8]),
)
def test_kept_frames(speech: list[tuple[float, float]], rows: int, align: int) -> None:
    frames, num_valid = -(-rows // 2), rows // 2
    duration_s = frames * 0.02 + 0.015
    segments = merged(
        sorted((min(start, duration_s - 0.001), min(start + length, duration_s)) for start, length in speech)
    )
    kept = kept_frames(segments, 320, frames=frames, num_valid=num_valid, align=align)
    assert all(start % align == 0 and (stop % align == 0 or stop == frames) for start, stop in kept)
    assert all(0 <= start < min(stop, num_valid) and stop <= frames for start, stop in kept)
    assert all(stop < start for (_, stop), (start, _) in pairwise(kept))
    inside = {frame for start, stop in kept for frame in range(start, stop)}
    for start, stop in segments:
        wanted = range(round(start * RATE) // 320, min(int(np.ceil(stop * 50 - 1e-3)), frames))
        assert inside.issuperset(wanted)
    assert len(kept) <= len(segments)
