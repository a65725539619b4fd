"""Spoken digit strings from the speech synthesiser espeak-ng (`apt-get install espeak-ng`)."""

from __future__ import annotations

import io
import subprocess
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import torch
import torchaudio.functional

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NATIVE_RATE = 22_050  # what espeak-ng itself writes, in Hz
RATE = 16_000  # what the model hears, in Hz

Waveform = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Voice:
    """Who speaks, and how."""

    name: str  # an espeak-ng voice, with its variant: "en-us+f3"
    speed: int  # words per minute
    pitch: int  # 0 to 99; espeak-ng's own default is 50


def digit_string(rng: np.random.Generator, words: int) -> str:
    """`words` digits drawn evenly, separated by spaces."""
    return " ".join(rng.choice(DIGITS, size=words))


def phrased(text: str, rng: np.random.Generator, group: tuple[int, int] = (2, 4)) -> str:
    """`text` with commas after groups of words, as people read numbers aloud; the words stay the same."""
    words = text.split()
    phrases = []
    while words:
        size = int(rng.integers(group[0], group[1] + 1))
        phrases.append(" ".join(words[:size]))
        words = words[size:]
    return ", ".join(phrases)


def say(text: str, voice: Voice, rate: int = RATE) -> Waveform:
    """Speech for `text`: float32 `(samples,)` in -1..1 at `rate` Hz.

    Raises:
        FileNotFoundError: espeak-ng is not installed.
        subprocess.CalledProcessError: espeak-ng knows no such voice.
    """
    manner = ["-v", voice.name, "-s", str(voice.speed), "-p", str(voice.pitch)]
    wav = subprocess.run(["espeak-ng", *manner, "--stdout", text], check=True, capture_output=True).stdout
    samples, native_rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    resampled = torchaudio.functional.resample(torch.from_numpy(samples), native_rate, rate)
    waveform: Waveform = resampled.clamp(-1, 1).numpy()
    return waveform
