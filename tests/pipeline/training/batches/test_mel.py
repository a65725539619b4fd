"""What log mel energies say of the sound behind them, against sounds."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.training.batches.mel import COLOURS, MelAxis
from w2vbert.features.fbank import Fbank

FBANK = Fbank()
AXIS = MelAxis(FBANK)
RATE = 16000


def sound_of(colour: str, seconds: int = 20) -> np.ndarray:
    """Noise whose power spectrum falls as it should, from 31 Hz on."""
    generator = np.random.default_rng(1)
    hertz = np.fft.rfftfreq(seconds * RATE, 1 / RATE)
    spectrum = np.fft.rfft(generator.standard_normal(seconds * RATE))
    spectrum /= np.maximum(hertz, 31.25) ** (COLOURS[colour] / 2)
    spectrum[hertz < 20] = 0
    waveform = np.fft.irfft(spectrum)
    return (0.1 * waveform / waveform.std()).astype(np.float32)


@pytest.mark.parametrize("colour", COLOURS)
def test_noise_has_the_energies_of_its_sound(colour: str) -> None:
    energies = FBANK(sound_of(colour)).T
    drawn = AXIS.noise(colour, 2000, np.random.default_rng(0))
    assert (drawn.shape, drawn.dtype) == ((2000, 80), np.float32)
    # Up to how loud it is, within half a decibel or so where a bin is not at the edge.
    apart = np.log(np.exp(energies).mean(axis=0)) - np.log(np.exp(drawn).mean(axis=0))
    assert np.abs(apart - np.median(apart))[2:].max() < 0.2
    # It flickers as much.
    relative = [np.exp(found).std(axis=0) / np.exp(found).mean(axis=0) for found in (energies, drawn)]
    np.testing.assert_allclose(relative[1][2:], relative[0][2:], rtol=0.2)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("ratio_db", [0.0, 10.0])
def test_power_is_that_of_the_waveform(colour: str, ratio_db: float) -> None:
    one = sound_of("white")
    other = sound_of(colour)[::-1] * np.float32(10 ** (-ratio_db / 20))
    measured = AXIS.power(FBANK(one).T) - AXIS.power(FBANK(np.ascontiguousarray(other)).T)
    assert measured * 10 / np.log(10) == pytest.approx(ratio_db, abs=1.5)


@pytest.mark.parametrize("factor", [0.85, 0.9, 1.1, 1.2])
@pytest.mark.parametrize("hertz", [1200, 1800, 2500])
def test_a_warp_moves_a_formant_by_its_factor(factor: float, hertz: int) -> None:
    """Energies of a sine at `hertz`, warped, have their peak where a sine at factor * hertz has it."""
    time = np.arange(RATE) / RATE
    flat = np.float32(1e-3) * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)

    def peak(energies: np.ndarray) -> int:
        """Of the energies above those of white noise."""
        white = AXIS.noise("white", 1000, np.random.default_rng(0)).mean(axis=0)
        return int(np.argmax(energies.mean(axis=0) - white))

    there, moved = (
        FBANK((0.3 * np.sin(2 * np.pi * at * time)).astype(np.float32) + flat).T
        for at in (hertz, hertz * factor)
    )
    assert abs(peak(AXIS.warp(there, factor)) - peak(moved)) <= 1
    assert abs(peak(there) - peak(moved)) >= 2


def test_a_warp_of_a_ramp_goes_the_right_way() -> None:
    white = np.log(FBANK.mel_filters().sum(axis=1)).astype(np.float32)
    ramp = np.tile(np.arange(80, dtype=np.float32), (3, 1)) + white
    higher, lower = AXIS.warp(ramp, 1.1), AXIS.warp(ramp, 0.9)
    inside = slice(5, 60)
    assert (higher[:, inside] < ramp[:, inside]).all()  # what was lower has moved here
    assert (lower[:, inside] > ramp[:, inside]).all()
    np.testing.assert_allclose(AXIS.warp(ramp, 1.0), ramp, atol=1e-4)


def test_a_warp_leaves_a_flat_spectrum_flat() -> None:
    """Neither the widths of bins nor the pre-emphasis move."""
    flat = AXIS.noise("white", 4000, np.random.default_rng(0)).mean(axis=0, keepdims=True)
    assert np.abs(AXIS.warp(flat, 1.15) - flat)[:, 2:-2].max() < 0.2
