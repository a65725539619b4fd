"""Four heads on one encoder learn what each of them learns on an encoder of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.metrics.rttm import Marks, Segment
from pipeline.training.examples.labels import Labeller
from pipeline.training.examples.labels.classes import Classify, Embed
from pipeline.training.examples.labels.diarize import Diarize
from pipeline.training.group import Group
from pipeline.training.loop.worker import ModelParts, train
from tests.pipeline.training.loop.made_up import SMALL, row_of, training_of, transcribing, write_index
from tests.pipeline.training.tables import FRAME_S
from tests.spoken import LETTERS, RATE, VOICES, Utterance, say, utterances
from w2vbert.config import Wav2Vec2BertConfig

METRICS = {"transcribe": "wer", "classify": "accuracy", "diarize": "der", "embed": "eer"}
CLIPS, HELD_OUT = 400, 60
XVECTOR = {
    "tdnn_dim": [16, 16, 16],
    "tdnn_kernel": [3, 2, 1],
    "tdnn_dilation": [1, 1, 1],
    "xvector_output_dim": 8,
}
pytestmark = pytest.mark.slow


def talks(count: int, seed: int) -> list[tuple[Utterance, list[Segment]]]:
    """Two voices after each other, and who speaks when."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        voices = rng.choice([*VOICES], 2, replace=False)
        parts = [say("".join(rng.choice([*LETTERS], 3)), VOICES[voice], rng) for voice in voices]
        first, whole = len(parts[0]) / RATE, sum(map(len, parts)) / RATE
        turns = [Segment(voices[0], 0.0, first), Segment(voices[1], first, whole)]
        found.append((Utterance(f"talk{number:04}.wav", "", "", np.concatenate(parts)), turns))
    return found


def rows_and_marks(count: int, seed: int) -> tuple[list[dict[str, Any]], dict[str, Marks]]:
    rows, marks = [], {}
    for one in utterances(count, seed, letters=(3, 6)):
        rows.append(row_of(one, ref_text=one.text, ref_label=one.text[0], speaker=one.voice))
        marks[one.name] = Marks([Segment(one.voice, 0.0, len(one.waveform) / RATE)])
    for one, turns in talks(count // 2, seed):
        rows.append(row_of(one))
        marks[one.name] = Marks(turns)
    return rows, marks


def labelled(marks: Mapping[str, Marks]) -> tuple[dict[str, Mapping[str, Any]], dict[str, Labeller]]:
    """By task, the fields of its head, and what teaches it."""
    model, labels = transcribing()
    heads = {
        **model.heads,
        "classify": {"id2label": dict(enumerate(LETTERS))},
        "diarize": {"num_labels": 2},
        "embed": {"num_labels": len(VOICES), **XVECTOR},
    }
    labels["classify"] = Classify("label", [*LETTERS])
    labels["diarize"] = Diarize(marks, 2, FRAME_S)
    labels["embed"] = Embed("speaker", [*VOICES], Wav2Vec2BertConfig.from_dict(SMALL | XVECTOR))
    return heads, labels


def measured(folder: Path, tasks: Sequence[str]) -> dict[str, float]:
    """What some tasks come to that are learned together, on clips that were not learned from."""
    rows, marks = rows_and_marks(CLIPS, 0)
    held_out, their_marks = rows_and_marks(HELD_OUT, 1)
    training = None
    for part, found, known in (("train", rows, marks), ("valid", held_out, their_marks)):
        heads, labels = labelled(known)
        heads, labels = ({task: of[task] for task in tasks} for of in (heads, labels))
        if training is None:
            model = ModelParts(Wav2Vec2BertConfig.from_dict(SMALL).to_dict(), heads, {}, seed=0)
            training = training_of(folder, found, rate=3e-3, model=model, labels=labels, num_epochs=20)
        else:
            valid = write_index(folder, part, found, labels)
    training = replace(training, data=replace(training.data, valid=valid))
    outcome = train(training, Group(), lambda kind, news: None)
    last = outcome.progress.measured[-1]
    print(last)
    return {task: last[f"{task}/{METRICS[task]}"] for task in tasks}


def test_together_as_well_as_alone(tmp_path: Path) -> None:
    together = measured(tmp_path / "together", [*METRICS])
    for task in METRICS:
        alone = measured(tmp_path / task, [task])[task]
        print(task, together[task], alone)
