"""The files of a tokenizer, as transformers 4 and 5 lay them out, and the arguments that they stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from w2vbert.fields import MAX_TOKENS, ConfigError, fields_of, flag, mapping, shown, text, whole
from w2vbert.pretrained.hub import Source, read_json
from w2vbert.tokenizer.vocabulary import AddedToken

VOCAB_FILE = "vocab.json"
CONFIG_FILE = "tokenizer_config.json"
ADDED_TOKENS_FILE = "added_tokens.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"

# Keys that say where a file came from, not what the tokenizer is.
_FILE_KEYS = ("tokenizer_class", "name_or_path", "special_tokens_map_file", "tokenizer_file", "vocab_file")


def read_arguments(source: Source) -> dict[str, Any]:
    """The arguments of a checkpoint's tokenizer; of its files only `vocab.json` must exist."""

    def content(filename: str) -> dict[str, Any]:
        path = source.find(filename)
        return read_json(path) if path else {}

    def arguments(filename: str) -> dict[str, Any]:
        with fields_of(f"{source.name_or_path}/{filename}"):
            return _arguments(content(filename))

    vocab_file = source.file(VOCAB_FILE)
    config, older = arguments(CONFIG_FILE), arguments(SPECIAL_TOKENS_FILE)
    if "added_tokens_decoder" in config:
        return {**older, **config, "vocab_file": vocab_file}
    # Before there was an added_tokens_decoder, the two other files had the last word.
    config = {**config, **older}
    named = (AddedToken.like(value) for key, value in config.items() if key.endswith("_token"))
    special = {token.content for token in named if token is not None}
    with fields_of(f"{source.name_or_path}/{ADDED_TOKENS_FILE}"):
        config["added_tokens_decoder"] = {
            _index(token, index): AddedToken(token, special=token in special, normalized=token not in special)
            for token, index in content(ADDED_TOKENS_FILE).items()
        }
    return {**config, "vocab_file": vocab_file}


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments from what a file says."""
    arguments = {key: _as_token(key, value) for key, value in config.items() if key not in _FILE_KEYS}
    older = arguments.pop("additional_special_tokens", None)
    more = arguments.pop("extra_special_tokens", None) or older or []
    if isinstance(more, Mapping):
        arguments.update((key, _as_token(key, value)) for key, value in more.items())
    elif not isinstance(more, list):
        raise ConfigError("extra_special_tokens", f"must be a list or an object, is {shown(more)}")
    elif more:
        arguments["extra_special_tokens"] = [_as_token("extra_special_tokens", token) for token in more]
    if "added_tokens_decoder" in arguments:
        saved = mapping("added_tokens_decoder", arguments["added_tokens_decoder"])
        arguments["added_tokens_decoder"] = {
            _index("added_tokens_decoder", index): _spelled(f"added_tokens_decoder.{index}", token)
            for index, token in saved.items()
        }
    return arguments


def _index(field: str, index: Any) -> int:
    """An id as a file gives it, as text where it is a key."""
    if isinstance(index, str) and index.isdecimal() and len(index) < 20:
        index = int(index)
    return whole(field, index, 0, MAX_TOKENS - 1)


def _as_token(field: str, value: Any) -> Any:
    """An AddedToken where a file spells one out, else the value."""
    if isinstance(value, Mapping) and "content" in value:
        sides = AddedToken.__dataclass_fields__.keys() - {"content"}
        told = {key: flag(f"{field}.{key}", value[key]) for key in sides & value.keys()}
        return AddedToken(text(f"{field}.content", value["content"]), **told)
    return value


def _spelled(field: str, value: Any) -> AddedToken:
    token = _as_token(field, value)
    if not isinstance(token, AddedToken):
        raise ConfigError(field, f"must be an object with the content of a token, is {shown(value)}")
    return token


def write_arguments(directory: Path, prefix: str, arguments: Mapping[str, Any], vocab_size: int) -> list[str]:
    """Write all but the vocabulary; the paths are returned.

    Args:
        prefix: of the names of the files.
        arguments: of the constructor, `added_tokens_decoder` among them.
    """
    added: Mapping[int, AddedToken] = arguments["added_tokens_decoder"]
    decoder = {str(index): asdict(token) for index, token in added.items()}
    paths = [write_json(directory / (prefix + CONFIG_FILE), {**arguments, "added_tokens_decoder": decoder})]
    behind = {token.content: index for index, token in added.items() if index >= vocab_size}
    if behind:
        paths.append(write_json(directory / (prefix + ADDED_TOKENS_FILE), behind))
    return paths


def write_json(path: Path, content: Mapping[str, Any]) -> str:
    """Write a JSON file as the published tokenizers do; its path is returned."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return str(path)
