"""Wav2Vec2BertProcessor: the feature extractor and the tokenizer of a checkpoint, in one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from w2vbert.features.batch import BatchFeature
from w2vbert.features.configuration import PROCESSOR_FILE
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor
from w2vbert.pretrained.hub import Source, read_json
from w2vbert.publishable import Configured, saving_options, without_models
from w2vbert.tokenizer.collapse import TokenIds, Wav2Vec2CTCTokenizerOutput
from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer

# What each part can be told in a call.
_FOR_AUDIO = signature(SeamlessM4TFeatureExtractor.__call__).parameters.keys() - {"self", "raw_speech"}
_FOR_TEXT = signature(Wav2Vec2CTCTokenizer.__call__).parameters.keys() - {"self", "text"}
_PARTS = ("feature_extractor", "tokenizer")


class ProcessingKwargs(TypedDict, total=False):
    """What a call tells one part alone, and both where nothing else is said."""

    audio_kwargs: Mapping[str, Any]
    text_kwargs: Mapping[str, Any]
    common_kwargs: Mapping[str, Any]


class Wav2Vec2BertProcessor(Configured):
    """What stands between audio, text and the model.

    Args:
        feature_extractor, tokenizer: the two parts; both are there to be used alone. Those of `transformers`
            do as well.
        extra: further keys of `processor_config.json`; `save_pretrained` writes them back.
    """

    _stands_for = ("transformers.processing_utils", "ProcessorMixin")

    valid_processor_kwargs: ClassVar[type] = ProcessingKwargs
    chat_template = None
    unused_input_names: tuple[str, ...] = ()

    def __init__(
        self,
        feature_extractor: SeamlessM4TFeatureExtractor,
        tokenizer: Wav2Vec2CTCTokenizer,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer
        self.extra = dict(extra or {})

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The names of the parts."""
        return [*_PARTS]

    @property
    def model_input_names(self) -> list[str]:
        return [*self.feature_extractor.model_input_names, "labels"]

    def __call__(
        self,
        audio: Any = None,
        text: str | Sequence[str] | None = None,
        **options: Any,
    ) -> BatchFeature:
        """Features of audio, ids of text, or features with the ids as `labels`.

        Args:
            audio: as `SeamlessM4TFeatureExtractor.__call__` takes it; say its `sampling_rate`.
            text: as `Wav2Vec2CTCTokenizer.__call__` takes it.
            options: arguments of either; those that both know, as `padding` and `return_tensors`, go to both.
                The dictionaries `audio_kwargs` and `text_kwargs` are for one of them alone; one of
                `common_kwargs` is as `options`, where nothing else is said. Before all of these go the
                arguments that the tokenizer was made with, such as `padding`, as published.

        Raises:
            ValueError: neither audio nor text, an argument that is given twice, or as the two parts.
            TypeError: an option that neither part knows.
        """
        if audio is None and text is None:
            raise ValueError("give audio, text or both")
        told = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **options)
        encoded = None if text is None else self.tokenizer(text, **told["text_kwargs"])
        if audio is None:
            assert encoded is not None
            return encoded
        batch = self.feature_extractor(audio, **told["audio_kwargs"])
        if encoded is not None:
            batch["labels"] = encoded["input_ids"]
        return batch

    def _merge_kwargs(
        self,
        ModelProcessorKwargs: Any = None,  # noqa: N803
        tokenizer_init_kwargs: Mapping[str, Any] | None = None,
        *,
        audio_kwargs: Mapping[str, Any] | None = None,
        text_kwargs: Mapping[str, Any] | None = None,
        common_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, dict[str, Any]]:
        """What a call tells each part, as published: subclasses with a call of their own ask for it."""
        if unknown := sorted(options.keys() - _FOR_AUDIO - _FOR_TEXT):
            raise TypeError(f"neither the feature extractor nor the tokenizer has an option {unknown[0]!r}")
        common = {**(tokenizer_init_kwargs or {}), **(common_kwargs or {})}
        return {
            "text_kwargs": _merged(_FOR_TEXT, common, options, text_kwargs or {}, "text_kwargs"),
            "audio_kwargs": _merged(_FOR_AUDIO, common, options, audio_kwargs or {}, "audio_kwargs"),
        }

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

    def decode(
        self, token_ids: TokenIds, *arguments: Any, **options: Any
    ) -> str | Wav2Vec2CTCTokenizerOutput:
        """`Wav2Vec2CTCTokenizer.decode`."""
        return self.tokenizer.decode(token_ids, *arguments, **options)

    def batch_decode(
        self, sequences: Iterable[TokenIds], *arguments: Any, **options: Any
    ) -> list[str] | Wav2Vec2CTCTokenizerOutput:
        """`Wav2Vec2CTCTokenizer.batch_decode`."""
        return self.tokenizer.batch_decode(sequences, *arguments, **options)

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
            kwargs: the hub's options (see `w2vbert.pretrained.hub.Source`); arguments of the feature
                extractor and the tokenizer, such as `target_lang`; `feature_extractor` and `tokenizer`
                themselves, where they are not to be those of the checkpoint.

        Raises:
            CheckpointNotFoundError: no such checkpoint, no features or no vocabulary in it.
            ValueError: a file that cannot be, or arguments that cannot.
            TypeError: an argument of the published method that means nothing here.
        """
        name, source = pretrained_model_name_or_path, Source.take(pretrained_model_name_or_path, kwargs)
        kwargs = without_models(kwargs, "from_pretrained")
        path = source.find(PROCESSOR_FILE)
        config: dict[str, Any] = read_json(path) if path else {}
        own = {
            key: value for key, value in config.items() if key not in ("feature_extractor", "processor_class")
        }
        parts = {part: kwargs.pop(part) for part in _PARTS if part in kwargs}
        if "feature_extractor" not in parts:
            extractor, unused = _extractor_class(config).from_pretrained(
                name, return_unused_kwargs=True, **source.options, **kwargs
            )
            parts["feature_extractor"] = extractor
            both = signature(Wav2Vec2CTCTokenizer).parameters.keys() & kwargs.keys()
            kwargs = unused | {key: kwargs[key] for key in both}
        if "tokenizer" not in parts:
            parts["tokenizer"] = Wav2Vec2CTCTokenizer.from_pretrained(name, **source.options, **kwargs)
        return cls(**parts, extra=own)

    def to_dict(self) -> dict[str, Any]:
        """The published configuration: the tokenizer has files of its own."""
        return {
            **self.extra,
            "feature_extractor": self.feature_extractor.to_dict(),
            "processor_class": type(self).__name__,
        }

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Write the tokenizer's files and `processor_config.json`, as transformers 5; returns the paths.

        Args:
            push_to_hub: upload the files too, to `repo_id` or, where omitted, the name of the directory.
            kwargs: those of `push_to_hub`.

        Raises:
            ConnectionError: the hub cannot be reached, or refuses; the files are written.
        """
        options = saving_options(push_to_hub, kwargs)
        path = Path(save_directory) / PROCESSOR_FILE
        written = [*self.tokenizer.save_pretrained(save_directory), str(path)]
        self.to_json_file(path)
        self._upload(save_directory, push_to_hub, options)
        return written

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.feature_extractor!r}, {self.tokenizer!r})"


def _extractor_class(config: Mapping[str, Any]) -> Any:
    """What a processor's file calls its extractor: ours, or one of `transformers` where that is loaded."""
    content = config.get("feature_extractor")
    kind = content.get("feature_extractor_type") if isinstance(content, Mapping) else None
    ours = SeamlessM4TFeatureExtractor
    if not isinstance(kind, str) or kind == ours.__name__ or not kind.endswith("FeatureExtractor"):
        return ours
    return getattr(sys.modules.get("transformers"), kind, ours)


def _merged(
    known: Iterable[str],
    common: Mapping[str, Any],
    options: Mapping[str, Any],
    own: Mapping[str, Any],
    name: str,
) -> dict[str, Any]:
    """The arguments of one part: what it knows of what all are told, and what it alone is told."""
    told = {key: options[key] for key in known if key in options}
    if twice := sorted(told.keys() & own.keys()):
        raise ValueError(f"{twice[0]} is given twice: as an argument and in {name}")
    return {**{key: common[key] for key in known if key in common}, **told, **own}
