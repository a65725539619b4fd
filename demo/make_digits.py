"""Make strings of recorded digits to learn from, with one speaker left out, and synthetic ones beside them.

    python demo/make_digits.py FOLDER RECORDINGS [--without SPEAKER]      # needs espeak-ng

RECORDINGS is as for `make_training.py`. FOLDER gets `train/easy.tar` and `train/strings.tar`, half of whose
clips are recorded, `valid/strings.tar` by other synthetic voices, and what the speaker left out says:
`test/real.tar`, and by a worse microphone `test/real-disturbed.tar`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from espeak import RATE, Waveform
from make_training import (
    DRAWN,
    DRAWN_FOR_VALIDATION,
    LONGEST,
    SEED,
    Clip,
    Recordings,
    Shards,
    disturbed,
    resampled,
    string_of,
)
from voices import KNOWN, draw_people, people

# Played faster or slower, a recorded speaker is another one, of another pitch and with other formants.
PACES = (0.84, 0.89, 0.94, 1.0, 1.06, 1.12, 1.18)


def recorded(
    folder: Path,
    speakers: Sequence[str],
    paces: Sequence[float],
    longest: int,
    clean: bool,
    rng: np.random.Generator,
) -> Clip:
    """A string by a recorded speaker, at some pace."""
    speaker, pace = speakers[int(rng.integers(len(speakers)))], paces[int(rng.integers(len(paces)))]
    text, samples = Recordings.read(folder).string(speaker, int(rng.integers(1, longest + 1)), rng)
    samples = _faint_noise(_played(samples, pace), rng)
    return Clip(samples if clean else disturbed(samples, rng), {"text": text, "speaker": f"{speaker}-{pace}"})


def _played(samples: Waveform, pace: float) -> Waveform:
    # Rates with a large common divisor, so that the resampling filter is short.
    return resampled(samples, RATE, 10 * round(RATE / pace / 10))


def _faint_noise(samples: Waveform, rng: np.random.Generator) -> Waveform:
    """No recording is silent between its words, as recordings of single words put together are."""
    level = np.std(samples) * 10 ** (-rng.uniform(30, 60) / 20)
    return samples + (level * rng.standard_normal(len(samples))).astype(np.float32)


def main(folder: Path, recordings: Path, without: str) -> None:
    rng = np.random.default_rng(SEED)
    drawn = draw_people(DRAWN + DRAWN_FOR_VALIDATION, folder / "voices", rng)
    half = DRAWN_FOR_VALIDATION // 2  # women come first
    for_validation, heard = drawn[:half] + drawn[-half:], [*people(KNOWN, rng), *drawn[half:-half]]
    digits = recordings / "digits"
    known = sorted(set(Recordings.read(digits).takes) - {without})
    with ProcessPoolExecutor() as pool:
        shards = Shards(folder, pool)
        for name, count, longest, clean in (
            ("train/easy", 4_000, 3, True),
            ("train/strings", 12_000, LONGEST, False),
        ):
            synthetic = partial(string_of, heard, longest, clean)
            shards.write(name, count, synthetic, partial(recorded, digits, known, PACES, longest, clean))
        count = 20 * len(for_validation)
        shards.write("valid/strings", count, partial(string_of, for_validation, LONGEST, False))
        for name, clean in (("test/real", True), ("test/real-disturbed", False)):
            shards.write(name, 150, partial(recorded, digits, [without], (1.0,), LONGEST, clean))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--without", default="theo", help="speaker of the digits to measure with")
    given = parser.parse_args()
    main(given.folder, given.recordings, given.without)
