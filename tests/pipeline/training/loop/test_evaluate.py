"""Validation: heads write what `annotate` writes, metrics follow from that, whoever validates which clip."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jiwer
import numpy as np
import pytest
import torch

from pipeline.node_files import CheckpointFiles
from pipeline.training.batches.batch import Batch
from pipeline.training.loop.evaluate import Evaluated, Evaluator, gathered, summarise
from tests.pipeline.annotate.features import annotator, feature_table
from tests.pipeline.training.loop.learners import (
    DEMO,
    FourHeads,
    batch_of,
    demo_clips,
    demo_files,
    demo_model,
    settings_of,
)
from w2vbert.processor import Wav2Vec2BertProcessor

TEXTS = [text for text, _ in demo_clips()]


@pytest.fixture(scope="module")
def files() -> dict[str, CheckpointFiles]:
    return demo_files()[0]


@pytest.fixture(scope="module")
def model(files: dict[str, CheckpointFiles]) -> FourHeads:
    return demo_model(files)


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """(frames, 160) of each clip."""
    _, extractor = demo_files()
    return [extractor.extract(samples).astype(np.float32) for _, samples in demo_clips()]


@pytest.fixture(scope="module")
def batches(files: dict[str, CheckpointFiles], clips: list[np.ndarray]) -> list[Batch]:
    """Two of unequal size, in which each clip has some targets."""
    tokenizer = Wav2Vec2BertProcessor.from_pretrained(files["transcribe"].settings()).tokenizer
    texts = [torch.tensor(tokenizer(text)["input_ids"]) for text in TEXTS]
    targets = {
        "transcribe": [None, *texts[1:]],
        "classify": [torch.tensor(number % 2) for number in range(len(clips))],
        "diarize": [turns(len(clip), number) for number, clip in enumerate(clips)],
        "embed": [torch.tensor(number % 3) for number in range(len(clips))],
    }
    cut = 2
    parts = (slice(None, cut), slice(cut, None))
    return [
        batch_of(clips[part], {task: of_all[part] for task, of_all in targets.items()}, part.start or 0)
        for part in parts
    ]


def turns(frames: int, speakers: int) -> torch.Tensor:
    """(frames, speakers), each speaks in a third of its own."""
    target = torch.zeros(frames, speakers % 2 + 1)
    for speaker in range(target.shape[1]):
        target[frames * speaker // 3 : frames * (speaker + 1) // 3, speaker] = 1
    return target


@pytest.fixture(scope="module")
def found(model: FourHeads, files: dict[str, CheckpointFiles], batches: list[Batch]) -> list[Evaluated]:
    """Of two workers with a batch each."""
    workers = []
    for batch in batches:
        evaluator = Evaluator(model, settings_of(files))
        evaluator.add(batch)
        workers.append(evaluator.found)
    return workers


def test_heads_write_what_annotate_writes(found: list[Evaluated]) -> None:
    _, extractor = demo_files()
    table = annotator(dict(DEMO))(feature_table(extractor, [samples for _, samples in demo_clips()]))
    rows = {f"c{number}": row for number, row in enumerate(table.to_pylist())}
    together = gathered(found)
    assert {task: len(scored) for task, scored in together.clips.items()} == {
        "transcribe": len(rows) - 1,
        "classify": len(rows),
        "diarize": len(rows),
        "embed": len(rows),
    }
    for task, column in {"transcribe": "text", "classify": "label"}.items():
        for clip in together.clips[task]:
            assert clip.values[column] == rows[clip.clip_id][column]
    for clip in together.clips["embed"]:
        assert clip.values["embedding"] == pytest.approx(rows[clip.clip_id]["embedding"], abs=1e-5)
    for clip in together.clips["diarize"]:
        told = [(s["speaker"], s["start_s"], s["end_s"]) for s in clip.values["segments"]]
        expected = [(s["speaker"], s["start_s"], s["end_s"]) for s in rows[clip.clip_id]["segments"]]
        assert [name for name, *_ in told] == [name for name, *_ in expected]
        assert np.array([times for _, *times in told]) == pytest.approx(
            np.array([times for _, *times in expected]), abs=0.011
        )


def test_references_come_from_the_targets(found: list[Evaluated], clips: list[np.ndarray]) -> None:
    together = gathered(found)
    assert [clip.reference for clip in together.clips["transcribe"]] == TEXTS[1:]
    assert [clip.reference for clip in together.clips["classify"]][:3] == ["female", "male", "female"]
    assert [clip.reference for clip in together.clips["embed"]][:4] == [0, 1, 2, 0]
    two = together.clips["diarize"][1]  # two speakers, a third of the clip each
    third = len(clips[1]) // 3 * 0.02, len(clips[1]) * 2 // 3 * 0.02
    assert [segment.speaker for segment in two.reference] == ["speaker_0", "speaker_1"]
    assert [segment.start_s for segment in two.reference] == pytest.approx([0, third[0]])
    assert [segment.end_s for segment in two.reference] == pytest.approx(third)


def test_metrics(found: list[Evaluated]) -> None:
    metrics = summarise(found)
    together = gathered(found)
    heard = [clip.values["text"] for clip in together.clips["transcribe"]]
    assert metrics["transcribe/wer"] == pytest.approx(jiwer.wer(TEXTS[1:], heard))
    assert metrics["transcribe/cer"] == pytest.approx(jiwer.cer(TEXTS[1:], heard))
    assert metrics["transcribe/wer"] < 0.2  # the demo's model reads its own corpus
    right = [clip.values["label"] == clip.reference for clip in together.clips["classify"]]
    assert metrics["classify/accuracy"] == pytest.approx(np.mean(right))
    for task in DEMO:
        losses = [clip.loss for clip in together.clips[task]]
        assert metrics[f"{task}/loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert metrics[f"{task}/failed"] == 0
    assert metrics["diarize/der"] > 0
    assert 0 <= metrics["embed/eer"] <= 1


def test_one_worker_finds_what_two_find(
    model: FourHeads, files: dict[str, CheckpointFiles], batches: list[Batch], found: list[Evaluated]
) -> None:
    before = model.encodings
    alone = Evaluator(model, settings_of(files))
    for batch in reversed(batches):
        alone.add(batch)
    assert model.encodings == before + len(batches)  # one pass for the losses and all heads
    travelled = [pickle.loads(pickle.dumps(worker)) for worker in found]
    assert summarise([alone.found]) == pytest.approx(summarise(travelled))


def test_modes_are_as_before(
    model: FourHeads, files: dict[str, CheckpointFiles], batches: list[Batch]
) -> None:
    """Parts that a run keeps in evaluation mode stay there."""
    own = copy.deepcopy(model).train()
    own.results["transcribe"].wav2vec2_bert.feature_projection.eval()
    modes = [part.training for part in own.modules()]
    Evaluator(own, settings_of(files)).add(batches[0])
    assert [part.training for part in own.modules()] == modes
    assert len(set(modes)) == 2


def test_voices_that_were_not_trained_on_are_compared(
    model: FourHeads, files: dict[str, CheckpointFiles], batches: list[Batch]
) -> None:
    classes = model.results["embed"].config.num_labels
    strangers = [torch.tensor(classes + number % 2) for number in range(len(batches[1].clip_ids))]
    batch = replace(batches[1], targets={"embed": strangers})
    evaluator = Evaluator(model, settings_of(files))
    losses = evaluator.add(batch)
    assert losses["embed"].count == 0
    metrics = summarise([evaluator.found])
    assert "embed/loss" not in metrics
    assert metrics["embed/eer"] >= 0
    assert {clip.loss for clip in evaluator.found.clips["embed"]} == {None}


def test_what_is_not_finite_counts_as_wrong(
    model: FourHeads, files: dict[str, CheckpointFiles], batches: list[Batch]
) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        for head in broken.results.values():
            head.wav2vec2_bert.feature_projection.projection.weight.fill_(torch.nan)
    evaluator = Evaluator(broken, settings_of(files))
    evaluator.add(batches[1])
    metrics = summarise([evaluator.found])
    assert {task: metrics[f"{task}/failed"] for task in DEMO} == dict.fromkeys(DEMO, 1.0)
    assert metrics["transcribe/wer"] == metrics["transcribe/blank_only"] == 1.0
    assert metrics["classify/accuracy"] == 0.0
    assert metrics["diarize/missed"] == metrics["diarize/der"] == 1.0
    assert "embed/eer" not in metrics


def test_a_clip_too_short_for_a_head(
    model: FourHeads, files: dict[str, CheckpointFiles], clips: list[np.ndarray]
) -> None:
    batch = batch_of([clips[0][:5], clips[1]], {"classify": [torch.tensor(0), torch.tensor(1)]})
    embed = replace(batch, targets={"embed": [torch.tensor(10**6), torch.tensor(10**6)]})
    evaluator = Evaluator(model, settings_of(files))
    evaluator.add(embed)
    assert summarise([evaluator.found])["embed/failed"] == 0.5


def test_only_tasks_with_targets_are_scored(
    model: FourHeads, files: dict[str, CheckpointFiles], batches: list[Batch]
) -> None:
    batch = replace(batches[0], targets={"classify": [None, torch.tensor(1)]})
    evaluator = Evaluator(model, settings_of(files))
    evaluator.add(batch)
    assert [clip.clip_id for clip in evaluator.found.clips["classify"]] == ["c1"]
    assert evaluator.found.clips.keys() == {"classify"}
    told: Mapping[str, Any] = summarise([evaluator.found])
    assert {name.partition("/")[0] for name in told if not math.isnan(told[name])} == {"classify"}
