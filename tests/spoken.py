"""Made-up speech: each letter is a chord of its own, each voice a pitch."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

RATE = 16_000
LETTERS = "abcdefgh"
VOICES = {"low": 0.8, "middle": 1.0, "high": 1.25}
Waveform = npt.NDArray[np.float32]
_LETTER_S, _PAUSE_S = 0.1, 0.04


@dataclass(frozen=True)
class Utterance:
    """A recording and what is known of it."""

    name: str
    text: str
    voice: str
    waveform: Waveform


def say(text: str, pitch: float, rng: np.random.Generator) -> Waveform:
    """(samples,) at 16 kHz."""
    times = np.arange(round(_LETTER_S * RATE)) / RATE
    ramp = np.minimum(1, np.minimum(times, times[::-1]) / 0.01)
    pause = np.zeros(round(_PAUSE_S * RATE))
    parts = [pause]
    for letter in text:
        place = LETTERS.find(letter)
        hertz = (400 * 1.3**place, 2000 + 300 * place) if place >= 0 else ()  # a space is silence
        chord = sum((np.sin(2 * np.pi * pitch * one * times) for one in hertz), np.zeros(len(times)))
        parts += [0.2 * ramp * chord, pause]
    samples = np.concatenate(parts)
    return (samples + rng.normal(0, 0.002, len(samples))).astype(np.float32)


def utterances(count: int, seed: int = 0, letters: tuple[int, int] = (2, 6)) -> list[Utterance]:
    """Texts of so many letters, drawn evenly, said by each voice in turn."""
    rng = np.random.default_rng(seed)
    voices = list(VOICES)
    found = []
    for number in range(count):
        text = "".join(rng.choice([*LETTERS], rng.integers(*letters, endpoint=True)))
        voice = voices[number % len(voices)]
        found.append(Utterance(f"{number:04}.wav", text, voice, say(text, VOICES[voice], rng)))
    return found


def write(folder: Path, spoken: Sequence[Utterance]) -> None:
    """As WAV files and a `labels.tsv`; a label is the first letter."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.tsv").open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, delimiter="\t", lineterminator="\n")
        lines.writerow(("path", "text", "speaker", "label"))
        for one in spoken:
            soundfile.write(folder / one.name, one.waveform, RATE)
            lines.writerow((one.name, one.text, one.voice, one.text[0]))
