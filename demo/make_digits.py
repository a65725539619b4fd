"""Make strings of recorded digits to learn from, with one speaker left out, and synthetic ones beside them.

    python demo/make_digits.py FOLDER RECORDINGS [--without SPEAKER]      # needs espeak-ng

RECORDINGS is as for `make_training.py`. FOLDER gets `train/easy.tar` and `train/strings.tar`, half of whose
clips are recorded, `valid/strings.tar` by other synthetic voices, and what the speaker left out says:
`test/real.tar`, and by a worse microphone `test/real-disturbed.tar`.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from make_training import (
    AS_IT_IS,
    DRAWN,
    DRAWN_FOR_VALIDATION,
    LONGEST,
    PACES,
    SEED,
    Recordings,
    Shards,
    recorded_string,
    string_of,
)
from voices import KNOWN, draw_people, people


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
            synthetic = partial(string_of, heard, AS_IT_IS, longest, clean)
            shards.write(
                name, count, synthetic, partial(recorded_string, digits, known, PACES, longest, clean)
            )
        count = 20 * len(for_validation)
        shards.write("valid/strings", count, partial(string_of, for_validation, AS_IT_IS, LONGEST, False))
        for name, clean in (("test/real", True), ("test/real-disturbed", False)):
            shards.write(name, 150, partial(recorded_string, digits, [without], AS_IT_IS, LONGEST, clean))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--without", default="theo", help="speaker of the digits to measure with")
    given = parser.parse_args()
    main(given.folder, given.recordings, given.without)
