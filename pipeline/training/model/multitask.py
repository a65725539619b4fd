"""Supervised fine-tuning: one encoder with a head for each task, one pass for all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.training.batches.batch import Batch
from pipeline.training.model.learner import Learner, with_idle, without_target
from pipeline.training.model.losses import TaskLoss
from pipeline.training.model.objectives import OBJECTIVES, Choices
from w2vbert.heads.task import TaskModel
from w2vbert.model import Draws, Encoding
from w2vbert.packing import Packed


class MultiTask(Learner):
    """Task models around one encoder.

    Args:
        models: by task, each with the same encoder.
        crop_frames: in training, shortest and longest part of a clip, in frames of the head, of which an
            x-vector is made; of the whole clip when omitted.
    """

    def __init__(
        self, models: Mapping[str, TaskModel], *, crop_frames: tuple[int, int] | None = None
    ) -> None:
        encoder = next(iter(models.values())).wav2vec2_bert
        assert all(model.wav2vec2_bert is encoder for model in models.values())
        super().__init__(encoder)
        self.tasks = nn.ModuleDict(models)
        self.crop_frames = crop_frames

    @property
    def results(self) -> Mapping[str, TaskModel]:
        return {task: cast(TaskModel, model) for task, model in self.tasks.items()}

    def forward(
        self,
        batch: Batch,
        *,
        skipped_layers: Collection[int] | None = None,
        margin: float | None = None,
        mask_time_indices: Tensor | None = None,
        see: Callable[[Encoding], None] | None = None,
    ) -> dict[str, TaskLoss]:
        features, skipped = self._features(batch), self._skipped(skipped_layers)
        targets = self._targets(batch)
        present = {task: model for task, model in self.results.items() if targets[task]}
        generator = torch.Generator().manual_seed(batch.seed)
        encoding = self.encoder.encode(
            features,
            mask_time_indices=mask_time_indices,
            output_hidden_states=any(
                model.needs_hidden_states for model in (present if see is None else self.results).values()
            ),
            draws=Draws(generator, skipped),
        )
        if see is not None:
            see(encoding)
        choices = Choices(generator, margin, self.crop_frames if self.training else None)
        nothing = without_target(len(features.lengths), features.frames.device)
        losses = dict.fromkeys(self.tasks, nothing)
        for task, model in present.items():
            rows = list(targets[task])
            loss = OBJECTIVES[task].loss(
                model, _select(encoding, rows), list(targets[task].values()), choices
            )
            if loss is not None:
                clips = nothing.clips.clone()
                clips[rows] = loss.clips
                losses[task] = replace(loss, clips=clips)
        return with_idle(losses, self._idle([task for task in self.tasks if losses[task].count], skipped))

    def counts(self, batch: Batch) -> dict[str, float]:
        lengths = batch.features.lengths
        return {
            task: OBJECTIVES[task].count(self.results[task], [lengths[row] for row in targets])
            for task, targets in self._targets(batch).items()
        }

    def _targets(self, batch: Batch) -> dict[str, dict[int, Tensor]]:
        """By task, the targets of the clips that have one."""
        return {
            task: {
                row: target for row, target in enumerate(batch.targets.get(task, ())) if target is not None
            }
            for task in self.tasks
        }

    def _idle(self, used: Sequence[str], skipped_layers: Collection[int]) -> Iterator[nn.Parameter]:
        """The parameters that none of the losses of these tasks depends on, or may not."""
        if not used:
            yield from self.parameters()
            return
        for task, model in self.results.items():
            if task not in used:
                yield from (
                    p for name, p in model.named_parameters() if not name.startswith("wav2vec2_bert.")
                )
        encoder = self.encoder
        for number in skipped_layers:
            yield from encoder.encoder.layers[number].parameters()
        if "masked_spec_embed" in encoder._parameters:
            yield encoder.masked_spec_embed
        if all(self.results[task].needs_hidden_states for task in used):
            for part in (encoder.intermediate_ffn, encoder.adapter):
                yield from () if part is None else part.parameters()


def _select(encoding: Encoding, rows: Sequence[int]) -> Encoding:
    """The encoding of some of its clips."""
    if len(rows) == len(encoding.last_hidden_state.lengths):
        return encoding

    def select(packed: Packed) -> Packed:
        clips = packed.split()
        return Packed.from_sequences([clips[row] for row in rows])

    states = encoding.hidden_states
    return Encoding(
        last_hidden_state=select(encoding.last_hidden_state),
        extract_features=select(encoding.extract_features),
        hidden_states=None if states is None else tuple(map(select, states)),
    )
