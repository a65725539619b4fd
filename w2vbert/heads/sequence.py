"""Wav2Vec2BertForSequenceClassification: one answer for a whole clip."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.encoder.adapter import ClipTooShortError
from w2vbert.heads.losses import clip_loss
from w2vbert.heads.moments import Moments
from w2vbert.heads.task import TaskModel, reject_adapter
from w2vbert.model import Encoding
from w2vbert.outputs import SequenceClassifierOutput
from w2vbert.packing import Packed
from w2vbert.pretrained.published import without_nones


class Wav2Vec2BertForSequenceClassification(TaskModel):
    """The encoder with a projection, the mean over time, and a linear layer over the labels.

    Raises:
        ConfigError: the configuration has an adapter, which this task does not take.
    """

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        config = Wav2Vec2BertConfig.of(config)
        reject_adapter(config, "sequence classification")
        super().__init__(config, weighted_layer_sum=config.use_weighted_layer_sum)
        self.projector = nn.Linear(self.frame_size, config.classifier_proj_size)
        self.classifier = nn.Linear(config.classifier_proj_size, config.num_labels)
        self.post_init()

    def project(self, encoding: Encoding) -> Packed:
        """What is averaged over time: (total_frames, classifier_proj_size)."""
        frames = self._frames(encoding)
        return frames.with_frames(self.projector(frames.frames))

    def clip_logits(self, encoding: Encoding) -> Tensor:
        """Logits of each clip: (batch, num_labels)."""
        means = torch.stack([clip.mean(dim=0) for clip in self.project(encoding).split()])
        logits: Tensor = self.classifier(means)
        return logits

    def pooling(self) -> MeanPooling:
        """An accumulator for the projected frames of one clip, in pieces of any length."""
        return MeanPooling(self.classifier)

    @without_nones
    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Logits of each clip of a padded batch, and the loss where labels are given.

        Args:
            input_features: (batch, frames, feature_projection_input_dim).
            attention_mask: (batch, frames), not zero on the frames of a clip; no padding when omitted.
            labels: (batch,) class indices or numbers, or (batch, num_labels), by `config.problem_type`: see
                `w2vbert.heads.losses.clip_loss`.
            mask_time_indices: (batch, frames), frames to replace by the learned mask vector.
            output_attentions, output_hidden_states, return_dict: as published; as configured when omitted.

        Returns:
            `SequenceClassifierOutput` with logits (batch, num_labels), or its tuple.
        """
        encoding, states = self._encode(
            input_features, attention_mask, mask_time_indices, output_attentions, output_hidden_states
        )
        logits = self.clip_logits(encoding)
        loss = None if labels is None else clip_loss(logits, labels, self.config.problem_type)
        output = SequenceClassifierOutput(loss=loss, logits=logits, **states)
        return output if self._wants_dict(return_dict) else output.to_tuple()


class MeanPooling:
    """The mean over the frames of a clip, then the classifier. It holds one frame, however long the clip."""

    def __init__(self, classifier: nn.Linear) -> None:
        self._classifier = classifier
        self._moments = Moments()

    def add(self, frames: Tensor) -> None:
        """Take the next projected frames: (n, classifier_proj_size)."""
        self._moments.add(frames)

    def finish(self) -> Tensor:
        """Logits of the clip: (num_labels,).

        Raises:
            ClipTooShortError: no frame was added.
        """
        if not self._moments.count:
            raise ClipTooShortError("the clip has no frames to take the mean of")
        logits: Tensor = self._classifier(self._moments.mean.to(self._classifier.weight.dtype))
        return logits
