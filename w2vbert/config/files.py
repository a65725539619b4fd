"""A configuration as dictionary, JSON and file, with the published methods."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from w2vbert.fields import ConfigError, fields_of, shown
from w2vbert.pretrained.hub import WITHOUT_EFFECT, Source, read_json, upload

CONFIG_NAME = "config.json"
# Of one process and not of the model: they are no part of the file.
_NOT_KEPT = frozenset({"_attn_implementation", "_name_or_path"})
_SWITCHES = {
    **dict.fromkeys(("true", "1", "y", "yes"), True),
    **dict.fromkeys(("false", "0", "n", "no"), False),
}


class ConfigFiles:
    """Reading and writing; a subclass has the fields, a `model_type` and `validate`."""

    model_type: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """All fields and kept unknown keys as plain JSON values (tuples become lists)."""
        values = {name: _plain(value) for name, value in vars(self).items() if name not in _NOT_KEPT}
        return {**values, "model_type": self.model_type}

    def to_diff_dict(self) -> dict[str, Any]:
        """As `to_dict`, without what is as in a new configuration."""
        usual = type(self)().to_dict()
        content = {name: value for name, value in self.to_dict().items() if usual.get(name, self) != value}
        return {**content, "model_type": self.model_type}

    def to_json_string(self, use_diff: bool = False) -> str:
        """The text of `config.json`: keys sorted, newline at the end."""
        content = self.to_diff_dict() if use_diff else self.to_dict()
        # Keys of id2label are numbers, so the keys cannot be sorted by json itself once unknown ones mix in.
        return json.dumps(dict(sorted(content.items())), indent=2) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = False) -> None:
        """Write the text of `config.json` into a file of any name."""
        Path(json_file_path).write_text(self.to_json_string(use_diff), encoding="utf-8")

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **hub_options: Any
    ) -> None:
        """Write `config.json` into `save_directory`, which is made if need be.

        Args:
            push_to_hub: upload it too; `hub_options` are those of `push_to_hub`, and `repo_id` is the name
                of the directory when omitted.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.to_json_file(folder / CONFIG_NAME)
        if push_to_hub:
            self.push_to_hub(hub_options.pop("repo_id", folder.name), **hub_options)

    def push_to_hub(self, repo_id: str, **hub_options: Any) -> str:
        """Upload `config.json` to the hub; see `w2vbert.pretrained.hub.upload`."""
        return upload(self.save_pretrained, repo_id, hub_options)

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **overrides: Any) -> Self:
        """Build from the content of a `config.json`; `overrides` win over it.

        With `return_unused_kwargs=True` also returns the overrides that are no fields.

        Raises:
            ConfigError: an impossible value, another family's `model_type`, or an override that is no field.
        """
        return cls._from_content(deepcopy(dict(config_dict)), overrides)

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike[str]) -> Self:
        """Build from a JSON file of any name.

        Raises:
            ConfigError: as `from_dict`, or the file is no JSON object.
        """
        content = read_json(json_file)
        with fields_of(json_file):
            return cls._from_content(content, {})

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The content of a checkpoint's `config.json`, and those of `kwargs` that are no options of the hub.

        Raises:
            CheckpointNotFoundError: there is no such file.
            ConfigError: it is no JSON object.
        """
        source = Source.take(pretrained_model_name_or_path, kwargs)
        unused = {name: value for name, value in kwargs.items() if name not in WITHOUT_EFFECT}
        return read_json(source.file(CONFIG_NAME)), unused

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Self:
        """Read `config.json` of a checkpoint.

        Args:
            pretrained_model_name_or_path: a directory, or an id on the Hugging Face hub.
            kwargs: the hub's options (see `w2vbert.pretrained.hub.Source`); fields that win over the file's;
                `return_unused_kwargs`, as `from_dict`.

        Raises:
            CheckpointNotFoundError: there is no such file.
            ConfigError: as `from_dict`, or the file is no JSON object.
        """
        path = Source.take(pretrained_model_name_or_path, kwargs).file(CONFIG_NAME)
        content = read_json(path)
        with fields_of(path):
            overrides = {name: value for name, value in kwargs.items() if name not in WITHOUT_EFFECT}
            return cls._from_content(content, overrides)

    @classmethod
    def _from_content(cls, content: dict[str, Any], overrides: dict[str, Any]) -> Self:
        model_type = content.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ConfigError(
                "model_type", f"this configuration is of {shown(model_type)}, not {cls.model_type!r}"
            )
        return_unused = overrides.pop("return_unused_kwargs", False)
        config = cls(**content)
        unused = {name: value for name, value in overrides.items() if not hasattr(config, name)}
        if unused and not return_unused:
            raise ConfigError(
                next(iter(unused)), "is no field of this configuration, so it cannot be overridden"
            )
        config.update({name: value for name, value in overrides.items() if name not in unused})
        config.validate()
        return (config, unused) if return_unused else config  # type: ignore[return-value]

    def update(self, config_dict: Mapping[str, Any]) -> None:
        """Set fields."""
        for name, value in config_dict.items():
            setattr(self, name, value)

    def update_from_string(self, update_str: str) -> None:
        """Set fields from a text such as "layerdrop=0.1,add_adapter=true": numbers, text, true or false.

        Raises:
            ConfigError: no such field, a value of another kind than the field's, or an impossible one.
        """
        changes = {}
        for pair in update_str.split(","):
            name, _, written = pair.partition("=")
            changes[name] = _read_as(name, getattr(self, name, None), written)
        self.update(changes)
        self.validate()

    def validate(self) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[str]:
        """The names of what it holds, as published."""
        return iter(vars(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConfigFiles) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable


def _read_as(name: str, present: Any, written: str) -> bool | int | float | str:
    """What was written, as a value of the kind that is there."""
    if isinstance(present, bool):
        if written.lower() in _SWITCHES:
            return _SWITCHES[written.lower()]
        raise ConfigError(name, f"must be true or false, is {shown(written)}")
    if not isinstance(present, int | float | str):
        raise ConfigError(name, "is no field that holds a number, a text, true or false")
    try:
        return type(present)(written)
    except ValueError:
        raise ConfigError(name, f"must be a number like {present}, is {shown(written)}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return list(value) if isinstance(value, tuple) else deepcopy(value)
