"""Wav2Vec2BertForAudioFrameClassification: who speaks in every frame."""

from __future__ import annotations

from torch import Tensor, nn

from w2vbert.config import ConfigError, Wav2Vec2BertConfig
from w2vbert.heads.losses import frame_loss
from w2vbert.heads.task import TaskModel, reject_adapter
from w2vbert.model import Encoding
from w2vbert.outputs import TokenClassifierOutput
from w2vbert.packing import Packed
from w2vbert.pretrained.published import without_nones


class Wav2Vec2BertForAudioFrameClassification(TaskModel):
    """The encoder with a linear layer over the labels of each frame, as for speaker diarization.

    The loss is binary cross-entropy of every label by itself, since speakers overlap; the published loss,
    cross-entropy against the first label that is one, is `problem_type="single_label_classification"`.

    Raises:
        ConfigError: the configuration has an adapter, or `problem_type` is "regression".
    """

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        config = Wav2Vec2BertConfig.of(config)
        reject_adapter(config, "frame classification")
        if config.problem_type == "regression":
            raise ConfigError("problem_type", "frame classification has no regression loss")
        super().__init__(config, weighted_layer_sum=config.use_weighted_layer_sum)
        self.num_labels = config.num_labels
        self.classifier = nn.Linear(self.frame_size, config.num_labels)
        self.post_init()

    def frame_logits(self, encoding: Encoding) -> Packed:
        """Logits of every frame, before the sigmoid: (total_frames, num_labels)."""
        frames = self._frames(encoding)
        return frames.with_frames(self.classifier(frames.frames))

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
    ) -> TokenClassifierOutput | tuple[Tensor, ...]:
        """Logits of each frame of a padded batch, zero on padding, and the loss where labels are given.

        Args:
            input_features: (batch, frames, feature_projection_input_dim).
            attention_mask: (batch, frames), not zero on the frames of a clip; no padding when omitted.
            labels: (batch, frames, num_labels) zeros and ones; frames that hold -100 do not count.
            mask_time_indices: (batch, frames), frames to replace by the learned mask vector.
            output_attentions, output_hidden_states, return_dict: as published; as configured when omitted.

        Returns:
            `TokenClassifierOutput` with logits (batch, frames, num_labels), or its tuple.
        """
        encoding, states = self._encode(
            input_features, attention_mask, mask_time_indices, output_attentions, output_hidden_states
        )
        logits = self.frame_logits(encoding)
        loss = None if labels is None else frame_loss(logits, labels, self.config.problem_type)
        padded = logits.pad(length=self._output_frames(input_features))
        output = TokenClassifierOutput(loss=loss, logits=padded, **states)
        return output if self._wants_dict(return_dict) else output.to_tuple()
