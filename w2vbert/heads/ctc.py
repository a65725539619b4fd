"""Wav2Vec2BertForCTC: a token distribution for every frame."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from w2vbert.config import ConfigError, Wav2Vec2BertConfig
from w2vbert.fields import enumerate_names
from w2vbert.heads.losses import ctc_loss
from w2vbert.heads.task import TaskModel
from w2vbert.model import Encoding
from w2vbert.outputs import CausalLMOutput
from w2vbert.packing import Packed
from w2vbert.pretrained.hub import CheckpointNotFoundError, Source
from w2vbert.pretrained.published import without_nones
from w2vbert.pretrained.weights import CheckpointError, StoredTensor, open_safetensors

# Logit of the blank on frames of padding, the other tokens being at 0: a probability of 1 in any precision.
_CERTAIN = 100.0


class Wav2Vec2BertForCTC(TaskModel):
    """The encoder with a linear layer over the vocabulary, for connectionist temporal classification.

    Args:
        config: `vocab_size` must be set, and `pad_token_id`, the blank, must lie in the vocabulary.
        target_lang: only for `from_pretrained`, which loads the weights of that language; there are none to
            load here.

    Raises:
        ConfigError: `vocab_size` or `pad_token_id` cannot be used.
        ValueError: `target_lang` was given.
    """

    def __init__(self, config: Wav2Vec2BertConfig, target_lang: str | None = None) -> None:
        if target_lang is not None:
            raise ValueError(
                f"target_lang={target_lang!r} names weights beside a checkpoint: pass it to from_pretrained, "
                "or call load_adapter on a loaded model"
            )
        config = Wav2Vec2BertConfig.of(config)
        if config.vocab_size is None:
            raise ConfigError(
                "vocab_size", "is not set: give the size of the tokenizer's vocabulary, such as vocab_size=32"
            )
        if config.pad_token_id is None or not 0 <= config.pad_token_id < config.vocab_size:
            raise ConfigError(
                "pad_token_id",
                f"is the blank of CTC, so it must be a token from 0 to {config.vocab_size - 1}, "
                f"is {config.pad_token_id}",
            )
        super().__init__(config)
        self.target_lang: str | None = None
        self.dropout = nn.Dropout(config.final_dropout)
        self.lm_head = nn.Linear(config.encoded_size, config.vocab_size)
        self.post_init()

    @property
    def blank(self) -> int:
        """Token id of the blank: `config.pad_token_id`."""
        blank = self.config.pad_token_id
        assert blank is not None  # the constructor saw to that
        return blank

    def frame_logits(self, encoding: Encoding) -> Packed:
        """Logits of every frame of the encoding, partly filled ones too: (total_frames, vocab_size)."""
        frames = encoding.last_hidden_state
        return frames.with_frames(self.lm_head(self.dropout(frames.frames)))

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
    ) -> CausalLMOutput | tuple[Tensor, ...]:
        """Logits of a padded batch, and the CTC loss where labels are given.

        Frames of padding hold the blank, so the best path of a whole row reads as the clip alone does.

        Args:
            input_features: (batch, frames, feature_projection_input_dim).
            attention_mask: (batch, frames), not zero on the frames of a clip; no padding when omitted.
            labels: (batch, target_length) token ids, -100 for padding.
            mask_time_indices: (batch, frames), frames to replace by the learned mask vector.
            output_attentions, output_hidden_states, return_dict: as published; as configured when omitted.

        Returns:
            `CausalLMOutput` with logits (batch, output frames, vocab_size), or its tuple.

        Raises:
            ValueError: labels outside the vocabulary, or not a row per clip.
        """
        encoding, states = self._encode(
            input_features, attention_mask, mask_time_indices, output_attentions, output_hidden_states
        )
        logits = self.frame_logits(encoding)
        loss = None
        if labels is not None:
            loss = ctc_loss(
                logits,
                labels,
                blank=self.blank,
                reduction=self.config.ctc_loss_reduction,
                zero_infinity=self.config.ctc_zero_infinity,
            )
        padded = self._pad(logits, self._output_frames(input_features))
        output = CausalLMOutput(loss=loss, logits=padded, **states)
        return output if self._wants_dict(return_dict) else output.to_tuple()

    def _pad(self, logits: Packed, length: int) -> Tensor:
        """(batch, length, vocab_size), with the blank on frames of padding."""
        padding = ~logits.mask(length=length)
        padded = logits.pad(length=length)
        blank = torch.arange(padded.shape[-1], device=padded.device) == self.blank
        return padded.masked_fill(padding[..., None] & blank, _CERTAIN)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *,
        target_lang: str | None = None,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Self:
        """As `Wav2Vec2BertPreTrainedModel.from_pretrained`, and:

        Args:
            target_lang: also load the weights of a language, see `load_adapter`.

        A `vocab_size` that `config.json` leaves open is taken from the stored head, else from the tokenizer.
        """
        name = pretrained_model_name_or_path
        loaded: Any = super().from_pretrained(name, output_loading_info=True, **kwargs)
        model, info = loaded
        if target_lang is not None:
            model.load_adapter(target_lang, **Source.take(name or "", kwargs).options)
        return (model, info) if output_loading_info else model  # type: ignore[return-value]

    @classmethod
    def _complete_config(
        cls, config: Wav2Vec2BertConfig, source: Source, stored: Mapping[str, StoredTensor]
    ) -> Wav2Vec2BertConfig:
        if config.vocab_size is not None:
            return config
        head = stored.get("lm_head.weight")
        vocab_size = head.shape[0] if head is not None and head.shape else _tokenizer_size(source)
        return type(config).from_dict(config.to_dict(), vocab_size=vocab_size)

    def load_adapter(self, target_lang: str, **hub_options: Any) -> None:
        """Replace weights by those of a language: `adapter.<target_lang>.safetensors` beside the checkpoint.

        The file holds the head (`lm_head.weight`, `lm_head.bias`), which may have a vocabulary of its own,
        and any other weights of the model that differ for the language.

        Args:
            target_lang: code of the language, as in the file's name.
            hub_options: see `w2vbert.pretrained.hub.Source`.

        Raises:
            CheckpointNotFoundError: the checkpoint has no such file.
            CheckpointError: the file does not fit the model; the model is left as it was.
        """
        source = Source.take(self.name_or_path, hub_options)
        if hub_options:
            raise TypeError(f"load_adapter() got an unexpected keyword argument {next(iter(hub_options))!r}")
        filename = f"adapter.{target_lang}.safetensors"
        path = source.find(filename)
        if path is None:
            raise CheckpointNotFoundError(
                f"{self.name_or_path} has no {filename}, so target_lang={target_lang!r} cannot be loaded"
            )
        stored = open_safetensors(path, self.device)
        head = self._head_for(stored)
        fresh = {f"lm_head.{name}": tensor for name, tensor in head.state_dict().items()}
        expected = {**self.state_dict(), **fresh}
        misfits = [
            name for name in stored if name not in expected or stored[name].shape != expected[name].shape
        ]
        if head is not self.lm_head:
            misfits += fresh.keys() - stored.keys()
        if misfits or not stored:
            raise CheckpointError(
                f"{path} does not fit the model: {enumerate_names(misfits) or 'it is empty'}"
            )
        if self.blank >= head.out_features:
            raise CheckpointError(
                f"{path} has a vocabulary of {head.out_features}, but the blank is token {self.blank}"
            )
        self.lm_head = head
        self.config.vocab_size = head.out_features
        self.load_state_dict({name: tensor.read() for name, tensor in stored.items()}, strict=False)
        self.target_lang = target_lang

    def _head_for(self, stored: Mapping[str, StoredTensor]) -> nn.Linear:
        """The model's head, or a new one where a file has another vocabulary."""
        weight = stored.get("lm_head.weight")
        if weight is None or not weight.shape or weight.shape == tuple(self.lm_head.weight.shape):
            return self.lm_head
        return nn.Linear(self.lm_head.in_features, weight.shape[0], device=self.device, dtype=self.dtype)


def _tokenizer_size(source: Source) -> int | None:
    """Tokens of the tokenizer beside the checkpoint, `None` where there is none."""
    from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer  # late: few checkpoints need it

    try:
        return len(Wav2Vec2CTCTokenizer.from_pretrained(source.name_or_path, **source.options))
    except CheckpointNotFoundError:
        return None
