"""Wav2Vec2BertProcessor: the feature extractor and the tokenizer of a checkpoint, in one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from w2vbert.features.batch import BatchFeature
from w2vbert.features.extractor import PROCESSOR_FILE, SeamlessM4TFeatureExtractor
from w2vbert.pretrained.hub import Source, read_json
from w2vbert.tokenizer.collapse import TokenIds, Wav2Vec2CTCTokenizerOutput
from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer

_FOR_BOTH = {
    "padding", "truncation", "max_length", "pad_to_multiple_of", "return_tensors", "return_attention_mask",
}  # fmt: skip
_FOR_AUDIO = {"sampling_rate", "channel", "do_normalize_per_mel_bins"}
_FOR_TEXT = {"add_special_tokens", "padding_side"}


class Wav2Vec2BertProcessor:
    """What stands between audio, text and the model.

    Args:
        feature_extractor, tokenizer: the two parts; both are there to be used alone.
        extra: further keys of `processor_config.json`; `save_pretrained` writes them back.
    """

    def __init__(
        self,
        feature_extractor: SeamlessM4TFeatureExtractor,
        tokenizer: Wav2Vec2CTCTokenizer,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer
        self.extra = dict(extra or {})

    @property
    def model_input_names(self) -> list[str]:
        return [*self.feature_extractor.model_input_names, "labels"]

    def __call__(
        self,
        audio: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        audio_kwargs: Mapping[str, Any] | None = None,
        text_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> BatchFeature:
        """Features of audio, ids of text, or features with the ids as `labels`.

        Args:
            audio: as `SeamlessM4TFeatureExtractor.__call__` takes it; `sampling_rate` must come with it.
            text: as `Wav2Vec2CTCTokenizer.__call__` takes it.
            options: arguments of either; those that both know, as `padding` and `return_tensors`, go to both.
            audio_kwargs, text_kwargs: arguments for one of them alone, which go before `options`.

        Raises:
            ValueError: neither audio nor text, or as the two parts.
            TypeError: an option that neither part knows.
        """
        if audio is None and text is None:
            raise ValueError("give audio, text or both")
        if unknown := sorted(options.keys() - _FOR_BOTH - _FOR_AUDIO - _FOR_TEXT):
            raise TypeError(f"neither the feature extractor nor the tokenizer has an option {unknown[0]!r}")
        of_audio = {key: options[key] for key in options.keys() & (_FOR_BOTH | _FOR_AUDIO)}
        of_text = {key: options[key] for key in options.keys() & (_FOR_BOTH | _FOR_TEXT)}
        encoded = None if text is None else self.tokenizer(text, **{**of_text, **(text_kwargs or {})})
        if audio is None:
            assert encoded is not None
            return encoded
        batch = self.feature_extractor(audio, **{**of_audio, **(audio_kwargs or {})})
        if encoded is not None:
            batch["labels"] = encoded["input_ids"]
        return batch

    def pad(self, input_features: Any = None, labels: Any = None, **options: Any) -> BatchFeature:
        """Collate features, labels, or both: see the `pad` of the two parts.

        Args:
            input_features: [{"input_features": ...}, ...].
            labels: [{"input_ids": ...}, ...]; they come back as `labels` when there are features too.
            options: arguments of both.
        """
        if input_features is None and labels is None:
            raise ValueError("give input_features, labels or both")
        if input_features is None:
            return self.tokenizer.pad(labels, **options)
        batch = self.feature_extractor.pad(input_features, **options)
        if labels is not None:
            batch["labels"] = self.tokenizer.pad(labels, **options)["input_ids"]
        return batch

    def decode(self, token_ids: TokenIds, **options: Any) -> str | Wav2Vec2CTCTokenizerOutput:
        """`Wav2Vec2CTCTokenizer.decode`."""
        return self.tokenizer.decode(token_ids, **options)

    def batch_decode(
        self, sequences: Iterable[TokenIds], **options: Any
    ) -> list[str] | Wav2Vec2CTCTokenizerOutput:
        """`Wav2Vec2CTCTokenizer.batch_decode`."""
        return self.tokenizer.batch_decode(sequences, **options)

    def decode_labels(self, labels: Iterable[TokenIds]) -> list[str]:
        """`Wav2Vec2CTCTokenizer.decode_labels`."""
        return self.tokenizer.decode_labels(labels)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> Wav2Vec2BertProcessor:
        """The processor of a checkpoint, as transformers 4 or 5 lays it out.

        Args:
            pretrained_model_name_or_path: a directory or a hub id.
            kwargs: the hub's options (see `w2vbert.pretrained.hub.Source`); arguments of the tokenizer, such
                as `target_lang`.

        Raises:
            CheckpointNotFoundError: no such checkpoint, no features or no vocabulary in it.
            ValueError: a file that cannot be, or arguments that cannot.
        """
        name, source = pretrained_model_name_or_path, Source.take(pretrained_model_name_or_path, kwargs)
        path = source.find(PROCESSOR_FILE)
        parts: dict[str, Any] = read_json(path) if path else {}
        own = {
            key: value for key, value in parts.items() if key not in ("feature_extractor", "processor_class")
        }
        return cls(
            SeamlessM4TFeatureExtractor.from_pretrained(name, **source.options),
            Wav2Vec2CTCTokenizer.from_pretrained(name, **source.options, **kwargs),
            extra=own,
        )

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> list[str]:
        """Write the tokenizer's files and `processor_config.json`, as transformers 5; returns the paths."""
        written = list(self.tokenizer.save_pretrained(save_directory))
        config = {
            **self.extra,
            "feature_extractor": self.feature_extractor.to_dict(),
            "processor_class": type(self).__name__,
        }
        path = Path(save_directory) / PROCESSOR_FILE
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return [*written, str(path)]
