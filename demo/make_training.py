"""Make what the demo's checkpoints learn from and are measured on: digits by voices that the corpus lacks.

    python demo/make_training.py FOLDER [--recordings RECORDINGS --without SPEAKER]      # needs espeak-ng

FOLDER gets tar shards, and who speaks when as RTTM: `train/` (easy strings, strings, talks), `valid/` and
`test/`, each by other voices. RECORDINGS may hold `digits/` (single words, with `labels.tsv`: path, speaker,
text), which make strings, but for one speaker's, which are kept for the test, and `librispeech/` (the same
columns), whose speakers talk to each other.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import tarfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio.functional
from espeak import RATE, Waveform, digit_string, phrased, say
from make_meeting import Turn, Utter, converse, rttm
from voices import HELD_OUT, KNOWN, Person, draw_people, people

SEED = 3
DRAWN, DRAWN_FOR_VALIDATION = 240, 16
LONGEST = 8  # words of a string


@dataclass(frozen=True)
class Clip:
    samples: Waveform
    facts: dict[str, str]
    turns: Sequence[Turn] = ()


Make = Callable[[np.random.Generator], Clip]


@dataclass(frozen=True)
class Recordings:
    """Recordings by speaker and word, float32 at 16 kHz; of running speech the word is the whole text."""

    takes: Mapping[str, Mapping[str, Sequence[Waveform]]]

    @classmethod
    @cache  # once in each process
    def read(cls, folder: Path) -> Recordings:
        takes: dict[str, dict[str, list[Waveform]]] = defaultdict(lambda: defaultdict(list))
        with (folder / "labels.tsv").open(newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                samples, rate = soundfile.read(folder / row["path"], dtype="float32")
                takes[row["speaker"]][row["text"]].append(resampled(samples, rate, RATE))
        return cls({speaker: dict(words) for speaker, words in takes.items()})

    def string(self, speaker: str, words: int, rng: np.random.Generator) -> tuple[str, Waveform]:
        """Single words one after another, with pauses."""
        text, parts = digit_string(rng, words), []
        for word in text.split():
            takes = self.takes[speaker][word]
            parts.append(takes[int(rng.integers(len(takes)))] * np.float32(rng.uniform(0.5, 1.5)))
            parts.append(np.zeros(int(rng.uniform(0, 0.35) * RATE), np.float32))
        return text, np.concatenate(parts[:-1])

    def excerpt(self, speaker: str, rng: np.random.Generator) -> tuple[str, Waveform]:
        """One to four seconds of running speech; nobody knows their text."""
        takes = self.takes[speaker]
        samples = takes[str(rng.choice(sorted(takes)))][0]
        length = int(rng.uniform(1, 4) * RATE)
        start = int(rng.integers(max(1, len(samples) - length)))
        return "", samples[start : start + length]


def spoken(person: Person, words: int, rng: np.random.Generator) -> tuple[str, Waveform]:
    text = digit_string(rng, words)
    return text, say(phrased(text, rng, group=(1, 5)), person.voice(rng))


def disturbed(samples: Waveform, rng: np.random.Generator) -> Waveform:
    """The clip as a worse microphone hears it: amid silence, band-limited to 4 kHz, noisy; each at random."""
    if rng.random() < 0.5:
        before, after = rng.uniform(0, 0.6, size=2) * RATE
        samples = np.pad(samples, (int(before), int(after)))
    if rng.random() < 0.5:
        samples = resampled(resampled(samples, RATE, RATE // 2), RATE // 2, RATE)
    if rng.random() < 0.6:
        spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
        spectrum[1:] /= np.arange(1, len(spectrum)) ** rng.uniform(0, 1)  # from white to brown
        noise = np.fft.irfft(spectrum, len(samples))
        level = np.std(samples) * 10 ** (-rng.uniform(5, 40) / 20)
        samples = samples + (noise * (level / np.std(noise))).astype(np.float32)
    return samples / np.float32(max(1.0, np.abs(samples).max()))


def string_of(persons: Sequence[Person], longest: int, clean: bool, rng: np.random.Generator) -> Clip:
    """A string of digits by somebody who does not hurry."""
    person = persons[int(rng.integers(len(persons)))]
    text, samples = spoken(person, int(rng.integers(1, longest + 1)), rng)
    samples = samples if clean else disturbed(samples, rng)
    return Clip(samples, {"text": text, "label": person.sex, "speaker": person.name})


def recorded_string(
    folder: Path, speakers: Sequence[str], longest: int, clean: bool, rng: np.random.Generator
) -> Clip:
    """The same by a recorded speaker. All of the six are men."""
    speaker = speakers[int(rng.integers(len(speakers)))]
    text, samples = Recordings.read(folder).string(speaker, int(rng.integers(1, longest + 1)), rng)
    samples = samples if clean else disturbed(samples, rng)
    return Clip(samples, {"text": text, "label": "male", "speaker": speaker})


def talk(speakers: Mapping[str, Utter], rng: np.random.Generator) -> Clip:
    """A conversation of two, every fifth time of one with himself. Its text is known if nobody interrupts."""
    count = 1 if rng.random() < 0.2 else 2
    return _talk_of(speakers, rng.choice(sorted(speakers), size=count, replace=False).tolist(), rng)


def pair(women: Mapping[str, Utter], men: Mapping[str, Utter], rng: np.random.Generator) -> Clip:
    """A conversation of a woman and a man, who are easy to tell apart."""
    names = [str(rng.choice(sorted(women))), str(rng.choice(sorted(men)))]
    return _talk_of({**women, **men}, names, rng)


def _talk_of(speakers: Mapping[str, Utter], names: Sequence[str], rng: np.random.Generator) -> Clip:
    turns = int(rng.integers(2, 5) if len(names) == 1 else rng.integers(4, 9))
    chosen = {name: speakers[name] for name in names}
    samples, said = converse(
        chosen, rng, turns, silence_s=float(rng.choice([0, rng.uniform(0, 3)])), overlapping=0.35
    )
    text = " ".join(turn.text for turn in said)
    apart = all(turn.end_s <= following.start_s for turn, following in pairwise(said))
    known = apart and all(turn.text for turn in said)
    return Clip(disturbed(samples * 8, rng), {"text": text} if known else {}, said)


def utters(persons: Sequence[Person]) -> dict[str, Utter]:
    """What people say in a talk."""
    return {person.name: partial(_digits, person) for person in persons}


def recorded_utters(folder: Path, speakers: Sequence[str], running: bool) -> dict[str, Utter]:
    say_one = _excerpt if running else _recorded_digits
    return {speaker: partial(say_one, folder, speaker) for speaker in speakers}


def _digits(person: Person, rng: np.random.Generator) -> tuple[str, Waveform]:
    return spoken(person, int(rng.integers(1, 6)), rng)


def _recorded_digits(folder: Path, speaker: str, rng: np.random.Generator) -> tuple[str, Waveform]:
    return Recordings.read(folder).string(speaker, int(rng.integers(1, 6)), rng)


def _excerpt(folder: Path, speaker: str, rng: np.random.Generator) -> tuple[str, Waveform]:
    return Recordings.read(folder).excerpt(speaker, rng)


class Shards:
    """Writes shards of clips; the same whatever the number of processes."""

    def __init__(self, folder: Path, pool: ProcessPoolExecutor) -> None:
        self.folder, self.pool = folder, pool

    def write(self, name: str, count: int, *makes: Make) -> None:
        """`count` clips, made by each in turn; their turns, if they have some, as RTTM beside them."""
        seeds = [(SEED, *name.encode(), number) for number in range(count)]
        chosen = [makes[number % len(makes)] for number in range(count)]
        path = self.folder / f"{name}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        marks = []
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, clip in enumerate(self.pool.map(_made, chosen, seeds, chunksize=16)):
                key = f"{path.parent.name}-{path.stem}-{number:05}"
                sound = io.BytesIO()
                soundfile.write(sound, clip.samples, RATE, format="FLAC")
                _add(tar, f"{key}.flac", sound.getvalue())
                _add(tar, f"{key}.json", json.dumps(clip.facts).encode())
                marks.append(rttm(clip.turns, key))
        if text := "".join(marks):
            path.with_suffix(".rttm").write_text(text)


def _made(make: Make, seed: tuple[int, ...]) -> Clip:
    torch.set_num_threads(1)
    return make(np.random.default_rng(seed))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def resampled(samples: Waveform, old: int, new: int) -> Waveform:
    resampled: Waveform = torchaudio.functional.resample(torch.from_numpy(samples), old, new).numpy()
    return resampled


def main(folder: Path, recordings: Path | None, without: str) -> None:
    rng = np.random.default_rng(SEED)
    drawn = draw_people(DRAWN + DRAWN_FOR_VALIDATION, folder / "voices", rng)
    half = DRAWN_FOR_VALIDATION // 2  # women come first
    for_validation, heard = drawn[:half] + drawn[-half:], [*people(KNOWN, rng), *drawn[half:-half]]
    held_out = people(HELD_OUT, rng)

    easy: list[Make] = [partial(string_of, heard, 3, True)]
    strings: list[Make] = [partial(string_of, heard, LONGEST, False)] * 2
    talks: list[Make] = [partial(talk, utters(heard))] * 3
    if recordings:
        digits, running = recordings / "digits", recordings / "librispeech"
        known = sorted(set(Recordings.read(digits).takes) - {without})
        easy.append(partial(recorded_string, digits, known, 3, True))
        strings.append(partial(recorded_string, digits, known, LONGEST, False))
        talks.append(partial(talk, recorded_utters(running, sorted(Recordings.read(running).takes), True)))
        talks.append(partial(talk, recorded_utters(digits, known, False)))
    with ProcessPoolExecutor() as pool:
        shards = Shards(folder, pool)
        shards.write("train/easy", 3_000, *easy)
        shards.write("train/strings", 3_600, *strings)
        shards.write("train/talks", 800, *talks)
        women, men = ([person for person in heard if person.sex == sex] for sex in ("female", "male"))
        shards.write("train/pairs", 600, partial(pair, utters(women), utters(men)))
        for place, persons in (("valid", for_validation), ("test", held_out)):
            shards.write(f"{place}/strings", 20 * len(persons), partial(string_of, persons, LONGEST, False))
            shards.write(f"{place}/talks", 40, partial(talk, utters(persons)))
        shards.write("test/clean", 20 * len(held_out), partial(string_of, held_out, LONGEST, True))
        if recordings:
            for name, clean in (("real", False), ("real-clean", True)):
                shards.write(f"test/{name}", 150, partial(recorded_string, digits, [without], LONGEST, clean))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recordings", type=Path, help="recorded speech to learn from too")
    parser.add_argument("--without", default="theo", help="speaker of the digits to measure with")
    given = parser.parse_args()
    main(given.folder, given.recordings, given.without)
