"""Validation: what each task's own head writes for a clip, as `annotate` would, against what the clip is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.features.windows import Window
from pipeline.node_files import CheckpointFiles
from pipeline.storage import Storage
from pipeline.tasks import TASKS
from pipeline.tasks.base import ClipFrames, Head, HeadParts, PackedWindow, Values
from pipeline.tasks.diarization.binarise import segments
from pipeline.training.batches.batch import Batch
from pipeline.training.model.learner import Learner
from pipeline.training.model.losses import TaskLoss
from pipeline.training.report.scores import LOSS, SCORINGS, Scored, means, metrics_of
from w2vbert.model import Encoding
from w2vbert.pretrained.model import Wav2Vec2BertPreTrainedModel


@dataclass(frozen=True)
class ValidationSettings:
    """What heads are built from.

    Attributes:
        checkpoints: by task; configuration and vocabulary are enough.
        frame_s: seconds from one encoder frame to the next.
    """

    checkpoints: Mapping[str, CheckpointFiles]
    frame_s: float
    storage: Storage


@dataclass
class Evaluated:
    """What one worker found; picklable, and several add up.

    Attributes:
        clips: by task, those that have a target for it.
        totals, counts: by task, the sum of losses and what it counts: see `TaskLoss`.
        facts: sums of `TaskLoss.facts`, by "task/fact".
        unusable: ids of the clips whose stored features are not finite.
    """

    clips: dict[str, list[Scored]] = field(default_factory=dict)
    totals: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    facts: Counter[str] = field(default_factory=Counter)
    unusable: list[str] = field(default_factory=list)

    def add(self, other: Evaluated) -> None:
        for task, clips in other.clips.items():
            self.clips.setdefault(task, []).extend(clips)
        self.totals.update(other.totals)
        self.counts.update(other.counts)
        self.facts.update(other.facts)
        self.unusable += other.unusable


class Evaluator:
    """Validates a model, batch by batch; the model may be in training mode before, and is so again after.

    Clips come whole: what `annotate` would cut into windows does not fit a batch.

    Attributes:
        found: in the batches so far.
    """

    def __init__(self, model: Learner, settings: ValidationSettings) -> None:
        self._model, self._frame_s = model, settings.frame_s
        self._heads: dict[str, Head] = {
            name: _head(name, head, settings) for name, head in model.results.items() if name in SCORINGS
        }
        self.found = Evaluated()

    def add(self, batch: Batch) -> Mapping[str, TaskLoss]:
        """Validates the clips of a batch, neither masked nor augmented; their losses are returned."""
        windows = [_window(frames, self._frame_s) for frames in batch.features.lengths]
        values: dict[str, list[Values]] = {}

        def see(encoding: Encoding) -> None:
            for task, head in self._heads.items():
                if any(target is not None for target in batch.targets.get(task, ())):
                    outputs = head.outputs(encoding, windows)
                    pairs = zip(windows, outputs, strict=True)
                    values[task] = [_values(task, head, window, output) for window, output in pairs]

        with _evaluating(self._model):
            losses: Mapping[str, TaskLoss] = self._model(self._learnable(batch), see=see)
        for task, loss in losses.items():
            self.found.totals.update({task: float(loss.total)})
            self.found.counts.update({task: loss.count})
            self.found.facts.update({f"{task}/{fact}": value for fact, value in loss.facts.items()})
        self.found.unusable += batch.unusable
        for task, of_clips in values.items():
            self.found.clips.setdefault(task, []).extend(self._scored(task, batch, of_clips, losses[task]))
        return losses

    def go_through(self, batch: Batch) -> None:
        """Computes a batch that counts nothing, with workers that have one more."""
        with _evaluating(self._model):
            self._model(self._learnable(batch), see=lambda encoding: None)

    def _scored(self, task: str, batch: Batch, values: Sequence[Values], loss: TaskLoss) -> list[Scored]:
        found = []
        of_clips = loss.clips.tolist()
        for index, target in enumerate(batch.targets[task]):
            if target is not None:
                seconds = batch.features.lengths[index] * self._frame_s
                reference = self._reference(task, target, seconds)
                finite = of_clips[index] if math.isfinite(of_clips[index]) else None
                found.append(Scored(batch.clip_ids[index], reference, values[index], seconds, finite))
        return found

    def _reference(self, task: str, target: Tensor, seconds: float) -> Any:
        """What a clip is, as its head would write it; of a voice, its number."""
        head: Any = self._heads[task]
        match task:
            case "transcribe":
                return head.tokenizer.decode_labels([target.tolist()])[0]
            case "classify":
                return head.names[int(target)]
            case "diarize":
                return segments(target.cpu().numpy().astype(np.bool_), self._frame_s, seconds)
        return int(target)

    def _learnable(self, batch: Batch) -> Batch:
        """Without voices that the model was not trained on: these have no class, and no loss."""
        if "embed" not in self._heads or "embed" not in batch.targets:
            return batch
        classes = self._model.results["embed"].config.num_labels
        known = [
            target if target is not None and int(target) < classes else None
            for target in batch.targets["embed"]
        ]
        return replace(batch, targets={**batch.targets, "embed": known})


def gathered(workers: Sequence[Evaluated]) -> Evaluated:
    """What all workers found, clips by id: the same, but for the rounding of sums, for any number of them."""
    found = Evaluated()
    for worker in workers:
        found.add(worker)
    for clips in found.clips.values():
        clips.sort(key=lambda clip: clip.clip_id)
    return found


def summarise(workers: Sequence[Evaluated]) -> dict[str, float]:
    """Metrics by "task/metric": "transcribe/loss", "transcribe/wer" and so on."""
    found = gathered(workers)
    metrics = {f"{task}/{LOSS}": found.totals[task] / count for task, count in found.counts.items() if count}
    metrics |= means(found.facts, found.counts)
    for task, clips in found.clips.items():
        metrics |= {f"{task}/{name}": value for name, value in metrics_of(task, clips).items()}
    return metrics


def _head(name: str, model: Wav2Vec2BertPreTrainedModel, settings: ValidationSettings) -> Head:
    task, checkpoint = TASKS[name], settings.checkpoints[name]
    options = task.options()
    files = task.read_files(options, checkpoint, settings.storage) if task.read_files else None
    # Heads ask each other only about recordings of several windows.
    return task.head(HeadParts(model, options, checkpoint, files, model.device, settings.frame_s, used={}))


def _window(frames: int, frame_s: float) -> PackedWindow:
    window = Window(0, frames, 0)
    return PackedWindow(ClipFrames(frames, frames, (window,), frames * frame_s), window)


def _values(task: str, head: Head, window: PackedWindow, output: Any) -> Values:
    """What the head writes of a clip; nothing where it is too short, or the numbers are not finite."""
    accumulator = head.accumulator(window.clip)
    try:
        accumulator.add(window.window, {task: output})
        values = accumulator.finish() or {}
    except FloatingPointError:
        return {}
    return {name: values[name] for name in SCORINGS[task].columns if name in values}


@contextmanager
def _evaluating(model: Learner) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each part is in the mode in which it was."""
    training = [part for part in model.modules() if part.training]
    try:
        for part in training:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True
