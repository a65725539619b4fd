"""Make the demo's recording of two speakers: meeting.flac, its true turns, and its text.

    python demo/make_meeting.py [FOLDER]       # needs espeak-ng; FOLDER defaults to demo/meeting

As with the corpus, the turns are the same on every run, and the samples for one version of espeak-ng.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from espeak import RATE, Voice, Waveform, digit_string, say
from make_corpus import SPEAKERS

SEED = 1
TURNS = 54
SILENCE_S = 15.0  # in the middle: what a voice-activity detector may skip
OVERLAPPING = 0.15  # of the changes of speaker: one begins before the other has ended
NOISE = 3e-5  # deviation of the noise of the room, without which a pause would be digital silence

Utter = Callable[[np.random.Generator], tuple[str, Waveform]]


@dataclass(frozen=True)
class Turn:
    """What one speaker says without a pause."""

    speaker: str
    text: str
    start_s: float
    end_s: float


def converse(
    speakers: Mapping[str, Utter],
    rng: np.random.Generator,
    turns: int,
    *,
    silence_s: float = 0.0,
    overlapping: float = OVERLAPPING,
) -> tuple[Waveform, list[Turn]]:
    """Speakers who take turns, with pauses and, at some changes, overlap.

    Args:
        speakers: by name, what says and returns the next thing: its text and float32 samples at 16 kHz.

    Returns:
        float32 `(samples,)` at 16 kHz, with `silence_s` seconds of silence in the middle; the turns in order.
    """
    names = list(speakers)
    said: list[tuple[Turn, Waveform]] = []
    ended = dict.fromkeys(names, 0.0)
    loudness = {name: rng.uniform(0.04, 0.08) for name in names}
    name = names[int(rng.integers(len(names)))]
    for index in range(turns):
        before, name = name, names[int(rng.integers(len(names)))]
        overlaps = name != before and rng.random() < overlapping
        pause = rng.uniform(-0.8, -0.3) if overlaps else rng.uniform(0.2, 1.0)
        if index == turns // 2:
            pause = rng.uniform(0.2, 1.0) + silence_s
        start = max(max(ended.values()) + pause, ended[name])
        text, samples = speakers[name](rng)
        speech = audible(samples)
        speech *= loudness[name] / np.abs(speech).max()
        first = round(start * RATE)
        ended[name] = (first + len(speech)) / RATE
        said.append((Turn(name, text, first / RATE, ended[name]), speech))
    length = round((max(ended.values()) + 0.5) * RATE)
    samples = rng.normal(0, NOISE, length).astype(np.float32)
    for turn, speech in said:
        first = round(turn.start_s * RATE)
        samples[first : first + len(speech)] += speech
    return samples, [turn for turn, _ in said]


def dictate(voice: Voice, rng: np.random.Generator) -> tuple[str, Waveform]:
    """Two to six digits."""
    text = digit_string(rng, int(rng.integers(2, 7)))
    return text, say(text, voice)


def audible(samples: Waveform) -> Waveform:
    """The clip without the silence that espeak-ng puts around speech."""
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1].copy()


def rttm(turns: Sequence[Turn], recording: str) -> str:
    """The turns as NIST's Rich Transcription Time Marks, one line each."""
    return "".join(
        f"SPEAKER {recording} 1 {turn.start_s:.3f} {turn.end_s - turn.start_s:.3f} <NA> <NA> {turn.speaker} "
        "<NA> <NA>\n"
        for turn in turns
    )


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    speakers = {speaker: partial(dictate, Voice(speaker, speed=150, pitch=50)) for speaker in SPEAKERS[:2]}
    samples, turns = converse(speakers, np.random.default_rng(SEED), TURNS, silence_s=SILENCE_S)
    soundfile.write(folder / "meeting.flac", samples, RATE)
    (folder / "meeting.rttm").write_text(rttm(turns, "meeting"))
    entry = {
        "audio_filepath": "meeting.flac",
        "text": " ".join(turn.text for turn in turns),
        "duration": len(samples) / RATE,
    }
    (folder / "list.jsonl").write_text(json.dumps(entry) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "meeting")
