"""What models, tokenizer, extractor and processor share as published: the way to the hub, their arguments."""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from w2vbert.pretrained.arguments import without_meaning
from w2vbert.pretrained.hub import upload

# What the published methods take for the sake of models. Here it asks for nothing where it is one of these.
_NOTHING = (None, False)
_OF_MODELS = {
    **dict.fromkeys(("attn_implementation", "config", "device_map", "dtype", "torch_dtype"), _NOTHING),
    **dict.fromkeys(("max_shard_size", "state_dict", "user_agent", "variant"), _NOTHING),
    **dict.fromkeys(("return_unused_kwargs", "use_safetensors"), _NOTHING),
    **dict.fromkeys(("is_main_process", "safe_serialization", "save_jinja_files"), (None, True)),
    "use_fast": (None, False, True),
}


class Publishable:
    """What is saved in a folder can be put on the hub, and passes for what it stands for.

    `transformers` asks with `isinstance` for its own base classes. Where it is loaded, `__class__`, which
    `isinstance` looks at beside the type, is a subclass of the one that is asked for. Nothing is inherited:
    `type(...)` is what it was, and calling `__class__` makes an instance of that.
    """

    # The module and the name of the base class of `transformers`.
    _stands_for: ClassVar[tuple[str, str]]
    _auto_class: ClassVar[None] = None  # as published: it is no class of a repository's own
    model_tags: list[str] | None = None  # of the card that is put on the hub

    @property
    def __class__(self) -> type:
        module, name = self._stands_for
        base = getattr(sys.modules.get(module), name, None)
        kind: Any = type(self)
        return kind if base is None else _kin(kind, base)

    @__class__.setter
    def __class__(self, kind: type) -> None:  # FSDP gives a module a class of its own
        object.__dict__["__class__"].__set__(self, kind)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are of the type, not of `__class__`."""
        return object.__new__, (type(self),), self.__getstate__()

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> Any:
        raise NotImplementedError

    def push_to_hub(self, repo_id: str, **hub_options: Any) -> str:
        """Upload the files that `save_pretrained` writes, and a card where a model has tags.

        Args:
            repo_id, hub_options: see `w2vbert.pretrained.hub.upload`.

        Raises:
            ConnectionError: the hub cannot be reached, or refuses.
        """
        return upload(self.save_pretrained, repo_id, hub_options, tags=self.model_tags)

    def _upload(self, folder: str | os.PathLike[str], push_to_hub: bool, hub_options: dict[str, Any]) -> None:
        """What `save_pretrained` does last: upload where it is asked to, by default to the folder's name."""
        if push_to_hub:
            self.push_to_hub(hub_options.pop("repo_id", Path(folder).name), **hub_options)


class Configured(Publishable):
    """What has one configuration, that its file holds as JSON."""

    def to_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    def to_json_string(self) -> str:
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        Path(json_file_path).write_text(self.to_json_string(), encoding="utf-8")


@cache
def _kin(kind: type, base: type) -> type:
    return type(kind.__name__, (kind, base), {"__module__": kind.__module__, "__new__": _make})


def _make(kin: type, *arguments: Any, **options: Any) -> Any:
    return kin.__bases__[0](*arguments, **options)


def saving_options(push_to_hub: bool, arguments: dict[str, Any]) -> dict[str, Any]:
    """What the keyword arguments of `save_pretrained` tell the hub.

    Raises:
        TypeError: an argument that is not known, or is for models and asks for something.
    """
    options = without_models(arguments, "save_pretrained")
    if not push_to_hub and (strange := sorted(options.keys() - {"token", "repo_id"})):
        raise TypeError(f"save_pretrained() got an unexpected keyword argument {strange[0]!r}")
    return options


def without_models(arguments: dict[str, Any], method: str) -> dict[str, Any]:
    """The arguments that are left when those that have no meaning here are taken away.

    Raises:
        TypeError: one is for models, and asks for something.
        ValueError: one asks for something that there is not.
    """
    left = without_meaning(arguments, method)
    for name in _OF_MODELS.keys() & left.keys():
        value = left.pop(name)
        if not any(value is nothing for nothing in _OF_MODELS[name]):
            raise TypeError(f"{method}({name}={value!r}): that is for models")
    return left
