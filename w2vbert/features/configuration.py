"""The files of a feature extractor, as transformers 4 and 5 lay them out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, Literal, Self, overload

from w2vbert.fields import ConfigError, fields_of, mapping, shown
from w2vbert.pretrained.hub import CheckpointNotFoundError, Source, read_json
from w2vbert.publishable import Configured, saving_options, without_models

CONFIG_FILE = "preprocessor_config.json"  # transformers 4, and a feature extractor saved alone
PROCESSOR_FILE = "processor_config.json"  # transformers 5: the same, nested

# Keys that say where a file came from, not what the extractor is.
_FILE_KEYS = ("feature_extractor_type", "processor_class")


class ConfiguredExtractor(Configured):
    """What is made of a published configuration, and gives it back."""

    _stands_for = ("transformers.feature_extraction_sequence_utils", "SequenceFeatureExtractor")

    extra: dict[str, Any]

    @property
    def feature_extractor_type(self) -> str:
        """The name of the class, as its file has it."""
        return type(self).__name__

    def __getattr__(self, name: str) -> Any:
        """Keys of the configuration that mean nothing here."""
        extra = self.__dict__.get("extra", {})
        if name not in extra:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return extra[name]

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: Literal[False] = False,
        **kwargs: Any,
    ) -> Self: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: Literal[True],
        **kwargs: Any,
    ) -> tuple[Self, dict[str, Any]]: ...

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Self | tuple[Self, dict[str, Any]]:
        """The extractor of a checkpoint, as transformers 5 (`processor_config.json`) or 4 lays it out.

        Args:
            pretrained_model_name_or_path: a directory or a hub id.
            kwargs: the hub's options (see `w2vbert.pretrained.hub.Source`); fields to set otherwise than the
                checkpoint does.
            return_unused_kwargs: return a pair, the extractor and those of kwargs that are fields neither of
                the class nor of the checkpoint.

        Raises:
            CheckpointNotFoundError: no such checkpoint, or neither file in it.
            ConfigError: an impossible value, or another kind of feature extractor.
            TypeError: an argument of the published method that means nothing here.
        """
        source = Source.take(pretrained_model_name_or_path, kwargs)
        kwargs = without_models(kwargs, "from_pretrained")
        config: dict[str, Any] | None = None
        if path := source.find(PROCESSOR_FILE):
            config = read_json(path).get("feature_extractor")
        if config is None and (path := source.find(CONFIG_FILE)):
            config = read_json(path)
        if config is None or path is None:
            raise CheckpointNotFoundError(
                f"{pretrained_model_name_or_path} has no feature extractor: neither {PROCESSOR_FILE} with a "
                f"feature_extractor in it, nor {CONFIG_FILE}"
            )
        with fields_of(path):
            kind = mapping("feature_extractor", config).get("feature_extractor_type", cls.__name__)
            if kind != cls.__name__:
                raise ConfigError("feature_extractor_type", f"Wav2Vec2-BERT does not use {shown(kind)}")
            if not return_unused_kwargs:
                return cls.from_dict({**config, **kwargs})
            known = config.keys() | signature(cls).parameters.keys()
            used = {key: value for key, value in kwargs.items() if key in known}
            unused = {key: value for key, value in kwargs.items() if key not in known}
            return cls.from_dict({**config, **used}), unused

    @classmethod
    def from_dict(cls, feature_extractor_dict: Mapping[str, Any], **kwargs: Any) -> Self:
        """The extractor that `to_dict` described, with fields set otherwise."""
        return cls(**{**feature_extractor_dict, **kwargs})

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike[str]) -> Self:
        """The extractor that `to_json_file` described."""
        with fields_of(json_file):
            return cls.from_dict(read_json(json_file))

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Write `preprocessor_config.json`, which transformers 4 and 5 load; returns the paths written.

        Args:
            push_to_hub: upload the file too, to `repo_id` or, where omitted, the name of the directory.
            kwargs: those of `push_to_hub`.

        Raises:
            ConnectionError: the hub cannot be reached, or refuses; the file is written.
        """
        options = saving_options(push_to_hub, kwargs)
        path = Path(save_directory) / CONFIG_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        self.to_json_file(path)
        self._upload(save_directory, push_to_hub, options)
        return [str(path)]

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


def without_file_keys(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a configuration that say something of the extractor."""
    return {key: value for key, value in extra.items() if key not in _FILE_KEYS}
