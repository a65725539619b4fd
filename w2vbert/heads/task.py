"""What the task models share: an encoder below, and which of its layers the head reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from w2vbert.config import ConfigError, Wav2Vec2BertConfig
from w2vbert.model import Encoding, Wav2Vec2BertModel
from w2vbert.packing import Packed
from w2vbert.pretrained.loading import NoDrawsWithoutMemory
from w2vbert.pretrained.model import Wav2Vec2BertPreTrainedModel


class TaskModel(Wav2Vec2BertPreTrainedModel):
    """A `Wav2Vec2BertModel` with room for a head.

    Args:
        config: sizes of encoder and head.
        weighted_layer_sum: whether the head reads a learned mean of the hidden states of all layers
            (Yang et al. 2021, "SUPERB", arXiv:2105.01051) instead of the last hidden states.
    """

    layer_weights: nn.Parameter | None

    def __init__(self, config: Wav2Vec2BertConfig, *, weighted_layer_sum: bool = False) -> None:
        config = Wav2Vec2BertConfig.of(config)
        super().__init__(config)
        self.wav2vec2_bert = Wav2Vec2BertModel(config)
        states = config.num_hidden_layers + 1
        self.layer_weights = nn.Parameter(torch.full((states,), 1 / states)) if weighted_layer_sum else None

    @classmethod
    def with_backbone(cls, config: Wav2Vec2BertConfig, backbone: Wav2Vec2BertModel) -> Self:
        """A new head around an encoder that is there; models may share one.

        Args:
            config: as of the encoder, with the sizes of the head.
        """
        with torch.device("meta"), NoDrawsWithoutMemory():
            model = cls(config)
        model.wav2vec2_bert = backbone
        model.to_empty(device=backbone.device, recurse=False)
        for child in model.children():
            if child is not backbone:
                child.to_empty(device=backbone.device)
        model.to(backbone.dtype)
        model.post_init()
        return model

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self and self.layer_weights is not None:
            nn.init.constant_(self.layer_weights, 1 / len(self.layer_weights))

    @property
    def needs_hidden_states(self) -> bool:
        """Whether the head reads the hidden states of every layer: what to ask `encode` for."""
        return self.layer_weights is not None

    @property
    def frame_size(self) -> int:
        """Width of the frames that the head reads."""
        return self.config.hidden_size if self.needs_hidden_states else self.config.encoded_size

    def frame_lengths(self, lengths: Sequence[int]) -> tuple[int, ...]:
        """How many frames the head reads of clips of these many encoder frames: an adapter shortens the last
        hidden states, but not those of every layer."""
        return tuple(lengths) if self.needs_hidden_states else self.wav2vec2_bert.output_lengths(lengths)

    def _frames(self, encoding: Encoding) -> Packed:
        """The frames that the head reads: (total_frames, frame_size)."""
        if self.layer_weights is None:
            return encoding.last_hidden_state
        states = encoding.hidden_states
        if states is None or len(states) != len(self.layer_weights):
            raise ValueError(
                "this head weighs the hidden states of all layers: encode with output_hidden_states=True"
            )
        weights = self.layer_weights.softmax(dim=0)
        total = weights[0] * states[0].frames
        for weight, state in zip(weights[1:], states[1:], strict=True):
            total = total + weight * state.frames
        return states[0].with_frames(total)

    def _encode(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None,
        mask_time_indices: Tensor | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
    ) -> tuple[Encoding, dict[str, Any]]:
        """Encode a padded batch: what the head reads, and what the caller asked to see of it.

        The encoder is called as a module, with what its own callers give it, so that hooks on it run, and so
        does what it was compiled to or wrapped in.
        """
        config = self.config
        show_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output = self.wav2vec2_bert(
            input_features,
            attention_mask=attention_mask,
            mask_time_indices=mask_time_indices,
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=show_states or self.needs_hidden_states,
            return_dict=True,
        )
        shown = {
            "hidden_states": output.hidden_states if show_states else None,
            "attentions": output.attentions,
        }
        return self.wav2vec2_bert.packed(output, attention_mask), shown

    def _output_frames(self, input_features: Tensor) -> int:
        """Frames per row of what is computed from padded features."""
        return self.wav2vec2_bert.output_lengths([input_features.shape[1]])[0]

    def _wants_dict(self, return_dict: bool | None) -> bool:
        return self.config.return_dict if return_dict is None else return_dict


def reject_adapter(config: Wav2Vec2BertConfig, task: str) -> None:
    """Raise where a head cannot stand on an adapter, as in the published family."""
    if config.add_adapter:
        raise ConfigError("add_adapter", f"{task} does not take an adapter: set it to False")
