"""What log mel energies say of the sound behind them: its power, its noise, its formants."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from w2vbert.features.fbank import PREEMPHASIS, Fbank

Floats = npt.NDArray[np.float32]
# The power spectrum falls with this power of the frequency.
COLOURS: dict[str, int] = {"white": 0, "pink": 1, "brown": 2}
_TURN = 0.6  # of the highest frequency: up to there a warp is a factor (4.8 kHz, as published)


class MelAxis:
    """The mel bins of a filterbank: (frames, bins) log energies everywhere, float32.

    Args:
        fbank: that made the energies.
    """

    def __init__(self, fbank: Fbank) -> None:
        self._fbank = fbank
        filters = fbank.mel_filters()
        hertz = np.arange(filters.shape[1]) * (fbank.sampling_rate / fbank.fft_length)
        self._filters, self._hertz = filters, hertz
        self._centres = filters @ hertz / filters.sum(axis=1)
        self._shapes = {colour: self._shape(colour) for colour in COLOURS}
        self._expected = {colour: filters @ self._spectrum(colour) for colour in COLOURS}
        self._white = np.log(self._expected["white"]).astype(np.float32)
        # Of a flat spectrum each bin would have as much power as its band is wide.
        self._widths = np.gradient(self._centres) / self._expected["white"]

    def power(self, energies: Floats) -> float:
        """The logarithm of the mean power of the sound from the lowest to the highest bin, up to a constant.

        Pre-emphasis and the overlap of bins are undone.
        """
        return float(np.log(np.mean(np.exp(energies, dtype=np.float64) @ self._widths)))

    def noise(self, colour: str, frames: int, generator: np.random.Generator) -> Floats:
        """The energies of stationary Gaussian noise of this colour.

        A bin adds up a few squares of Gaussian numbers: so nearly a gamma distribution.
        """
        shape = self._shapes[colour]
        drawn = generator.standard_gamma(shape, (frames, len(shape)), dtype=np.float32)
        offset = np.log(self._expected[colour] / shape).astype(np.float32)
        found: Floats = np.log(np.maximum(drawn, np.finfo(np.float32).tiny)) + offset
        return found

    def warp(self, energies: Floats, factor: float) -> Floats:
        """The energies of a voice whose formants lie at `factor` times the frequencies.

        Source: Jaitly and Hinton 2013, "Vocal tract length perturbation (VTLP) improves speech recognition":
        a factor up to a corner, from there a straight line to the highest frequency.
        """
        highest = self._fbank.high_frequency
        corner = _TURN * highest * min(factor, 1.0) / factor
        hertz = np.interp(self._centres, [0, corner * factor, highest], [0, corner, highest])
        places = np.interp(hertz, self._centres, np.arange(len(self._centres)))
        below = np.minimum(places.astype(np.int64), len(places) - 2)
        share = (places - below).astype(np.float32)
        # Wide bins have more energy, and high frequencies are emphasised: that stays where it is.
        flat = energies - self._white
        found: Floats = flat[:, below] * (1 - share) + flat[:, below + 1] * share + self._white
        return found

    def _spectrum(self, colour: str) -> npt.NDArray[np.float64]:
        """The power spectrum of noise after pre-emphasis, (fft_length / 2 + 1,)."""
        turns = np.exp(-2j * np.pi * self._hertz / self._fbank.sampling_rate)
        falling = np.maximum(self._hertz, self._hertz[1]) ** COLOURS[colour]
        found: npt.NDArray[np.float64] = np.abs(1 - PREEMPHASIS * turns) ** 2 / falling
        return found

    def _shape(self, colour: str) -> Floats:
        """(bins,) shape of each bin's gamma distribution: the square of its mean over its variance.

        Neighbouring frequencies go together as far as the window smears them.
        """
        window = np.hanning(self._fbank.frame_length) ** 0.85
        smeared = np.abs(np.fft.fft(window**2, self._fbank.fft_length)) ** 2
        apart = np.abs(np.subtract.outer(*[np.arange(len(self._hertz))] * 2))
        weights = self._filters * self._spectrum(colour)
        variance = np.einsum("bi,ij,bj->b", weights, (smeared / smeared[0])[apart], weights, optimize=True)
        found: Floats = (weights.sum(axis=1) ** 2 / variance).astype(np.float32)
        return found
