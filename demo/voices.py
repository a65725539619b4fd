"""People to train on: espeak-ng's own voice variants, and many more that are drawn.

A variant of espeak-ng is a text file: pitch, formants, and how rough or breathy a voice is. So voices are no
scarcer than random numbers: `draw_people` writes such files, and points espeak-ng to them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from espeak import Voice

# "en" and not "en-gb", for which espeak-ng 1.51 ignores the variant: any "en-gb+..." is its plain male voice.
ACCENTS = ("en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
# espeak-ng's variants by what one hears, less those of the corpus and those that sound the same as another.
KNOWN = {
    "female": ("Alicia", "anika", "f1", "grandma", "steph2"),
    "male": (
        *("Alex", "Diogo", "Gene", "Hugo", "Mario", "Mike", "antonio", "david", "gustave", "m1", "m5", "max"),
        *("miguel", "paul", "rob", "sandro"),
    ),
}
# Those that training never hears: the voices of every measurement.
HELD_OUT = {
    "female": ("Annie", "aunty", "belinda", "f2", "f4", "steph"),
    "male": (
        *("Andy", "Denis", "Henrique", "Lee", "Marco", "Michael", "boris", "ed", "john", "m3", "m7", "m8"),
        *("michel", "pablo", "quincy", "robert", "travis", "victor"),
    ),
}


@dataclass(frozen=True)
class Person:
    """A voice variant with an accent, and a pace and pitch of its own."""

    name: str
    sex: str  # what one hears: "female" or "male"
    accent: str
    speed: int
    pitch: int

    def voice(self, rng: np.random.Generator) -> Voice:
        """The person's voice at some moment."""
        speed, pitch = self.speed + rng.integers(-15, 16), self.pitch + rng.integers(-8, 9)
        return Voice(f"{self.accent}+{self.name}", int(speed), int(pitch))


def people(variants: Mapping[str, Sequence[str]], rng: np.random.Generator) -> list[Person]:
    """One person for each variant."""
    return [
        Person(name, sex, str(rng.choice(ACCENTS)), int(rng.integers(110, 181)), int(rng.integers(40, 61)))
        for sex, names in variants.items()
        for name in names
    ]


def draw_people(count: int, folder: Path, rng: np.random.Generator) -> list[Person]:
    """People whose variants are drawn, as many women as men; from now on `folder` is espeak-ng's data.

    Raises:
        FileNotFoundError: espeak-ng is not installed.
    """
    version = subprocess.run(["espeak-ng", "--version"], check=True, capture_output=True, text=True).stdout
    installed = Path(version.partition("Data at: ")[2].strip())
    data = folder / "espeak-ng-data"
    # English alone, and no more variants than are spoken: espeak-ng takes 349 voices at most.
    files = [path.name for path in installed.iterdir() if path.name not in ("lang", "voices")]
    files += [
        "lang/gmw",
        *(f"voices/!v/{name}" for kind in (KNOWN, HELD_OUT) for name in sum(kind.values(), ())),
    ]
    for name in files:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        if not (data / name).exists():
            (data / name).symlink_to(installed / name)
    drawn: dict[str, list[str]] = {"female": [], "male": []}
    for number in range(count):
        sex = ("female", "male")[number % 2]
        name = f"drawn{number:03}"
        (data / "voices/!v" / name).write_text(_variant(name, sex, rng))
        drawn[sex].append(name)
    os.environ["ESPEAK_DATA_PATH"] = str(folder)
    return people({sex: tuple(names) for sex, names in drawn.items()}, rng)


def _variant(name: str, sex: str, rng: np.random.Generator) -> str:
    """A file that espeak-ng reads: the pitch in Hz, all else in percent of its usual voice."""
    lowest = rng.uniform(125, 185) if sex == "female" else rng.uniform(60, 105)
    tract = rng.uniform(1.06, 1.26) if sex == "female" else rng.uniform(0.84, 1.05)
    lines = [
        *("language variant", f"name {name}", f"gender {sex}"),
        f"pitch {lowest:.0f} {lowest * rng.uniform(1.25, 1.6):.0f}",
        f"flutter {rng.integers(0, 8)}",
        f"roughness {rng.integers(0, 5)}",
        f"voicing {rng.integers(60, 131)}",
        f"consonants {rng.integers(70, 126)} {rng.integers(70, 126)}",
    ]
    for number in range(9):
        frequency = 100 * (1 + (tract - 1) * (0.3 if number == 0 else 1)) * rng.uniform(0.95, 1.05)
        height = rng.uniform(60, 125) if number else 100
        lines.append(f"formant {number} {frequency:.0f} {height:.0f} {rng.uniform(80, 150):.0f}")
    return "\n".join(lines) + "\n"
