"""What is trained: an encoder with whatever it learns by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline.errors import JobError
from pipeline.training.batches.batch import Batch
from pipeline.training.model.losses import TaskLoss
from w2vbert.fields import enumerate_names
from w2vbert.model import Encoding, Wav2Vec2BertModel
from w2vbert.packing import Packed
from w2vbert.pretrained.model import Wav2Vec2BertPreTrainedModel


class Learner(nn.Module, ABC):
    """An encoder and what it learns by. DDP and FSDP2 hook `forward`, so everything happens in there.

    Masks and crops of a batch are functions of its seed; dropout draws from torch's default generator, which
    the caller seeds.
    """

    def __init__(self, encoder: Wav2Vec2BertModel) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    @abstractmethod
    def results(self) -> Mapping[str, Wav2Vec2BertPreTrainedModel]:
        """What is to be published, by task; they share the encoder."""

    @abstractmethod
    def forward(
        self,
        batch: Batch,
        *,
        skipped_layers: Collection[int] | None = None,
        margin: float | None = None,
        mask_time_indices: Tensor | None = None,
        see: Callable[[Encoding], None] | None = None,
    ) -> dict[str, TaskLoss]:
        """The losses of a batch, by task, those too that no clip of it has a target for.

        Every trainable parameter gets a gradient, be it zero, from the totals whose count is not zero, or
        from all of them: workers that share a step must agree about which parameters have one.

        Args:
            batch: on any device.
            skipped_layers: what LayerDrop leaves out; in training drawn when omitted.
            margin: of the AM-softmax; that of the head when omitted.
            mask_time_indices: (clips, longest) bool, frames to mask; drawn when omitted.
            see: is shown the encoding, with all that any of the results reads, while weights are whole that
                FSDP2 has spread over workers.
        """

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, float]:
        """The `TaskLoss.count` that `forward` will find, by task: a step divides by the sum over all of its
        batches, before the first of them is computed."""

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Takes tensors by the names of `named_parameters`, where what heads share has one.

        Raises:
            JobError: they are of another model.
        """
        if strange := sorted(weights.keys() ^ dict(self.named_parameters()).keys()):
            raise JobError(f"the weights are those of another model: {enumerate_names(strange, limit=5)}")
        try:
            self.load_state_dict(weights, strict=False)
        except RuntimeError as problem:  # of shapes
            raise JobError(f"the weights are those of another model: {problem}") from problem

    def _skipped(self, skipped_layers: Collection[int] | None) -> Collection[int]:
        if skipped_layers is None:
            return self.encoder.encoder.draw_skipped_layers() if self.training else ()
        return skipped_layers

    def _features(self, batch: Batch) -> Packed:
        return batch.features.with_frames(batch.features.frames.to(self.encoder.device))


def with_idle(losses: dict[str, TaskLoss], idle: Iterable[Tensor]) -> dict[str, TaskLoss]:
    """The losses with 0 x the sum of parameters that they do not depend on."""
    zeros = [_local(tensor).sum() * 0.0 for tensor in idle if tensor.requires_grad]
    if not zeros or not torch.is_grad_enabled():
        return losses
    task = max(losses, key=lambda name: losses[name].count > 0)
    total = losses[task].total + torch.stack(zeros).sum()
    return {**losses, task: replace(losses[task], total=total)}


def without_target(clips: int, device: torch.device) -> TaskLoss:
    """Of a batch in which nothing counts."""
    return TaskLoss(torch.zeros((), device=device), 0, torch.full((clips,), torch.nan, device=device))


def _local(tensor: Tensor) -> Tensor:
    """Of a tensor that FSDP2 has sharded the part that is here."""
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local
