"""What the demo's checkpoints learn from is what its labels say, and the same on every run."""

from __future__ import annotations

import csv
import importlib
import io
import json
import shutil
import sys
import tarfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from pyannote.database.util import load_rttm

from pipeline.training.spec import FinetuneSpec
from tests.conftest import ROOT

DEMO = ROOT / "demo"
needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`demo/make_training.py`, which finds its neighbours as a script does."""
    monkeypatch.syspath_prepend(str(DEMO))
    return importlib.import_module("make_training")


@pytest.fixture
def persons(make: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setenv("ESPEAK_DATA_PATH", "")  # so that what is set is taken back
    drawn: list[Any] = make.draw_people(4, tmp_path / "voices", np.random.default_rng(0))
    return drawn


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Two speakers whose every word is a tone of their own."""
    folder = tmp_path / "digits"
    folder.mkdir()
    with (folder / "labels.tsv").open("w", newline="") as file:
        rows = csv.writer(file, delimiter="\t")
        rows.writerow(("path", "speaker", "text"))
        for speaker, hertz in (("low", 200), ("high", 1000)):
            tone = np.sin(2 * np.pi * hertz * np.arange(3200) / 8000)
            for word in sys.modules["espeak"].DIGITS:
                soundfile.write(folder / f"{speaker}-{word}.wav", 0.5 * tone, 8000)
                rows.writerow((f"{speaker}-{word}.wav", speaker, word))
    return folder


def read(shard: Path) -> dict[str, tuple[np.ndarray, dict[str, str]]]:
    with tarfile.open(shard) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    return {
        name.removesuffix(".flac"): (
            soundfile.read(io.BytesIO(data))[0],
            json.loads(files[name.replace(".flac", ".json")]),
        )
        for name, data in files.items()
        if name.endswith(".flac")
    }


@needs_espeak
def test_drawn_people_differ_and_women_have_the_higher_voices(make: ModuleType, persons: list[Any]) -> None:
    espeak = importlib.import_module("espeak")
    assert [person.sex for person in persons] == ["female", "female", "male", "male"]
    said = [
        espeak.say("one two three four", espeak.Voice(f"en+{person.name}", 150, 50)) for person in persons
    ]
    assert len({samples.tobytes() for samples in said}) == 4

    def pitch(samples: np.ndarray) -> float:
        frames = [samples[start : start + 800] for start in range(0, len(samples) - 800, 400)]
        loud = max(frames, key=lambda frame: float(np.square(frame).sum()))
        correlation = np.correlate(loud, loud, "full")[len(loud) - 1 :]
        return 16_000 / (40 + int(np.argmax(correlation[40:320])))

    assert min(map(pitch, said[:2])) > max(map(pitch, said[2:]))


@needs_espeak
@pytest.mark.slow
def test_shards_are_the_same_whatever_the_processes(
    make: ModuleType, persons: list[Any], tmp_path: Path
) -> None:
    found = []
    for processes in (1, 2):
        with ProcessPoolExecutor(processes) as pool:
            shards = make.Shards(tmp_path / str(processes), pool)
            shards.write("train/strings", 4, partial(make.string_of, persons, 3, False))
        found.append((tmp_path / str(processes) / "train/strings.tar").read_bytes())
    assert found[0] == found[1]
    clips = read(tmp_path / "1/train/strings.tar")
    assert list(clips) == [f"train-strings-{number:05}" for number in range(4)]
    for samples, facts in clips.values():
        assert {facts["speaker"]: facts["label"]}.items() <= {p.name: p.sex for p in persons}.items()
        assert 1 <= len(facts["text"].split()) <= 3
        assert len(samples) > 3200 * len(facts["text"].split())


def test_recorded_strings_are_of_the_speakers_that_are_asked_for(make: ModuleType, recordings: Path) -> None:
    for speaker, hertz in (("low", 200), ("high", 1000)):
        clip = make.recorded_string(recordings, [speaker], 4, True, np.random.default_rng(1))
        assert clip.facts["speaker"] == speaker
        spectrum = np.abs(np.fft.rfft(clip.samples))
        assert np.argmax(spectrum) * 16_000 / len(clip.samples) == pytest.approx(hertz, rel=0.02)
        assert len(clip.samples) >= 6400 * len(clip.facts["text"].split())


def test_talks_are_marked_where_they_are_heard(make: ModuleType, recordings: Path, tmp_path: Path) -> None:
    speakers = make.recorded_utters(recordings, ["low", "high"], False)
    clips = [make.talk(speakers, np.random.default_rng(seed)) for seed in range(8)]
    assert {len({turn.speaker for turn in clip.turns}) for clip in clips} == {1, 2}
    for number, clip in enumerate(clips):
        ordered = sorted(clip.turns, key=lambda turn: turn.start_s)
        apart = all(one.end_s <= other.start_s for one, other in pairwise(ordered))
        assert ("text" in clip.facts) == apart
        if apart:
            assert clip.facts["text"] == " ".join(turn.text for turn in ordered)
        (tmp_path / "talk.rttm").write_text(make.rttm(clip.turns, f"talk-{number}"))
        marks = load_rttm(tmp_path / "talk.rttm")[f"talk-{number}"]
        assert set(marks.labels()) == {turn.speaker for turn in clip.turns}


@pytest.mark.parametrize("recipe", sorted((DEMO / "recipe").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_settings_of_the_job(recipe: Path) -> None:
    spec = FinetuneSpec.model_validate(yaml.safe_load(recipe.read_text()))
    assert spec.run.output == f"demo/out/model/{recipe.stem}"
