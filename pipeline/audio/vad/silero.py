"""Voice activity as the network of the package `silero-vad` hears it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from pipeline.audio.resampling import SAMPLE_RATE
from pipeline.audio.stream import Samples

_CHUNK = 512  # samples that the network takes at a time: 32 ms
# As `EnergyDetector` has them, in milliseconds and seconds.
_SHORTEST_PAUSE_MS, _PADDING = 500, 0.2


class SileroDetector:
    """Speech is what the network of Silero VAD (Silero Team, 2021) gives more than 0.5 of, and while it gives
    more than 0.35.

    Pauses shorter than 0.5 s are kept, and 0.2 s around the rest, as `EnergyDetector` keeps them. The network
    ships with the package and is loaded once in a process, whose recordings it hears one after another.
    """

    def __init__(self) -> None:
        network, iterator = _package()
        self._pending = np.empty(0, np.float32)
        self._heard = iterator(
            network, sampling_rate=SAMPLE_RATE, min_silence_duration_ms=_SHORTEST_PAUSE_MS, speech_pad_ms=0
        )
        self._samples = 0
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, samples: Samples) -> None:
        self._samples += len(samples)
        samples = np.concatenate([self._pending, samples])
        whole = len(samples) // _CHUNK * _CHUNK
        self._pending = samples[whole:].copy()
        for first in range(0, whole, _CHUNK):
            self._hear(samples[first : first + _CHUNK])

    def finish(self) -> list[tuple[float, float]]:
        if len(self._pending):
            self._hear(np.pad(self._pending, (0, _CHUNK - len(self._pending))))
            self._pending = self._pending[:0]
        stops = [*self._stops, self._samples] if len(self._stops) < len(self._starts) else self._stops
        return [
            (max(0.0, start / SAMPLE_RATE - _PADDING), min(stop, self._samples) / SAMPLE_RATE + _PADDING)
            for start, stop in zip(self._starts, stops, strict=True)
        ]

    def _hear(self, chunk: Samples) -> None:
        with torch.inference_mode():
            turn: dict[str, int] | None = self._heard(torch.from_numpy(chunk))
        if turn is not None:
            self._starts += [turn["start"]] if "start" in turn else []
            self._stops += [turn["end"]] if "end" in turn else []


@cache
def _package() -> tuple[Any, Any]:
    """The network, and what hears a stream with it."""
    threads = torch.get_num_threads()
    from silero_vad import VADIterator, load_silero_vad

    torch.set_num_threads(threads)  # the package sets one, for the whole process
    return load_silero_vad(), VADIterator
