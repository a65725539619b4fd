"""The loss of each task on the clips of a pack that have a target for it.

Each returns the sum of what it counts, or None where nothing counts. Facts are sums of the same: divided by
the count they are means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pipeline.training.model.losses import TaskLoss
from pipeline.training.model.permutation import in_best_order
from w2vbert.heads import (
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2BertForXVector,
)
from w2vbert.heads.losses import IGNORE, clip_loss, ctc_loss, frame_losses
from w2vbert.heads.moments import segment_mean_std
from w2vbert.heads.task import TaskModel
from w2vbert.model import Encoding


@dataclass(frozen=True)
class Choices:
    """What is chosen anew for each batch.

    Attributes:
        generator: on the CPU; of all that is drawn.
        margin: of the AM-softmax; that of the head where None.
        crop_frames: shortest and longest part of a clip, in frames of the head, of which an x-vector is made;
            of the whole clip where None.
    """

    generator: torch.Generator
    margin: float | None = None
    crop_frames: tuple[int, int] | None = None


def transcribe(
    model: Wav2Vec2BertForCTC, encoding: Encoding, targets: Sequence[Tensor], choices: Choices
) -> TaskLoss:
    """CTC "mean": of each clip the negative log-likelihood divided by the length of its target.

    A target longer than any path costs infinitely much; it counts as zero, with a gradient of zero.

    Facts: `zeroed` clips; `blank`, the share of a clip's frames whose best token is the blank.
    """
    logits = model.frame_logits(encoding)
    frames = torch.tensor(logits.lengths, device=logits.frames.device)
    labels = pad_sequence(list(targets), batch_first=True, padding_value=IGNORE).to(frames.device)
    lengths = (labels != IGNORE).sum(dim=1)
    losses = ctc_loss(logits, labels, blank=model.blank, reduction="none", zero_infinity=True)
    losses = losses / lengths.clamp(min=1)
    repeats = ((labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] != IGNORE)).sum(dim=1)
    zeroed = lengths + repeats > frames
    blank = logits.with_frames((logits.frames.argmax(dim=1) == model.blank).float())
    facts = torch.stack((zeroed.sum(), (blank.pad().sum(dim=1) / frames).sum())).tolist()
    return TaskLoss(
        total=losses.sum(),
        count=len(targets),
        clips=losses.detach().masked_fill(zeroed, torch.inf),
        facts=dict(zip(("zeroed", "blank"), facts, strict=True)),
    )


def classify(
    model: Wav2Vec2BertForSequenceClassification,
    encoding: Encoding,
    targets: Sequence[Tensor],
    choices: Choices,
) -> TaskLoss:
    """Cross-entropy. Facts: `correct` clips, whose best label is the right one."""
    logits = model.clip_logits(encoding)
    labels = torch.stack(list(targets)).to(logits.device)
    losses = clip_loss(logits, labels, "single_label_classification", reduction="none")
    correct = (logits.argmax(dim=1) == labels).sum().item()
    return TaskLoss(losses.sum(), len(targets), losses.detach(), {"correct": correct})


def diarize(
    model: Wav2Vec2BertForAudioFrameClassification,
    encoding: Encoding,
    targets: Sequence[Tensor],
    choices: Choices,
) -> TaskLoss:
    """Binary cross-entropy of each output in each frame, with the speakers in the order that costs least."""
    logits = model.frame_logits(encoding)
    active = in_best_order(logits, targets)
    sums, counts = frame_losses(logits, active, "multi_label_classification")
    return TaskLoss(sums.sum(), active.numel(), sums.detach() / counts)


def embed(
    model: Wav2Vec2BertForXVector, encoding: Encoding, targets: Sequence[Tensor], choices: Choices
) -> TaskLoss | None:
    """AM-softmax of the x-vectors of clips, or of random parts of them. Too short a clip does not count."""
    projected = model.project(encoding)
    chosen = [row for row, length in enumerate(projected.lengths) if length >= model.minimum_frames]
    if not chosen:
        return None
    # All clips run through the time-delay network as one; spans leave out what reads across a border.
    delayed = model.delay(projected.frames)
    spans = []
    for row in chosen:
        start, length = _part(projected.lengths[row], model.minimum_frames, choices)
        first = projected.offsets[row] + start
        spans.append((first, first + length - model.context))
    statistics = torch.cat(segment_mean_std(delayed, spans), dim=1)
    logits = model.embed(statistics.to(model.dtype)).logits
    labels = torch.stack([targets[row] for row in chosen]).to(logits.device)
    losses = model.objective(logits, labels, margin=choices.margin, reduction="none")
    clips = losses.new_full((len(targets),), torch.nan)
    clips[chosen] = losses.detach()
    return TaskLoss(losses.sum(), len(chosen), clips)


def _part(frames: int, minimum: int, choices: Choices) -> tuple[int, int]:
    """First frame and length of a random part of a clip."""
    if choices.crop_frames is None:
        return 0, frames

    def draw(lowest: int, highest: int) -> int:
        return int(torch.randint(lowest, highest + 1, (), generator=choices.generator))

    length = max(min(draw(*choices.crop_frames), frames), minimum)
    return draw(0, frames - length), length


def _long_enough(model: Wav2Vec2BertForXVector, frames: Sequence[int]) -> int:
    return sum(length >= model.minimum_frames for length in model.frame_lengths(frames))


@dataclass(frozen=True)
class Objective:
    """How a task is learned.

    Attributes:
        model: its class.
        loss: of the clips of an encoding, each with its target.
        count: what the loss counts, of clips of these many encoder frames.
        fields: of the configuration, as the objective wants them; they are published with the result.
    """

    model: type[TaskModel]
    loss: Callable[[Any, Encoding, Sequence[Tensor], Choices], TaskLoss | None]
    count: Callable[[Any, Sequence[int]], int]
    fields: dict[str, Any]


OBJECTIVES = {
    "transcribe": Objective(
        Wav2Vec2BertForCTC,
        transcribe,
        lambda model, frames: len(frames),
        {"ctc_loss_reduction": "mean", "ctc_zero_infinity": True},
    ),
    "classify": Objective(
        Wav2Vec2BertForSequenceClassification,
        classify,
        lambda model, frames: len(frames),
        {"problem_type": "single_label_classification"},
    ),
    "diarize": Objective(
        Wav2Vec2BertForAudioFrameClassification,
        diarize,
        lambda model, frames: sum(frames) * model.num_labels,
        {"problem_type": "multi_label_classification"},
    ),
    "embed": Objective(Wav2Vec2BertForXVector, embed, _long_enough, {}),
}
