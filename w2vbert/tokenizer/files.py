"""The files of a tokenizer, as transformers 4 and 5 lay them out, and the arguments that they stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

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

    vocab_file = source.file(VOCAB_FILE)
    config = _arguments(content(CONFIG_FILE))
    named = _arguments(content(SPECIAL_TOKENS_FILE))
    if "added_tokens_decoder" in config:
        return {**named, **config, "vocab_file": vocab_file}
    # Before there was an added_tokens_decoder, the two other files had the last word.
    config = {**config, **named}
    special = {str(value) for key, value in config.items() if key.endswith("_token")}
    added = content(ADDED_TOKENS_FILE).items()
    config["added_tokens_decoder"] = {
        index: AddedToken(token, special=token in special, normalized=token not in special)
        for token, index in added
    }
    return {**config, "vocab_file": vocab_file}


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments from what a file says."""
    arguments = {key: _as_token(value) for key, value in config.items() if key not in _FILE_KEYS}
    older = arguments.pop("additional_special_tokens", None)
    more = arguments.pop("extra_special_tokens", None) or older or []
    if isinstance(more, Mapping):
        arguments.update((key, _as_token(value)) for key, value in more.items())
    elif more:
        arguments["extra_special_tokens"] = [_as_token(token) for token in more]
    if "added_tokens_decoder" in arguments:
        saved = arguments["added_tokens_decoder"].items()
        arguments["added_tokens_decoder"] = {int(index): _as_token(token) for index, token in saved}
    return arguments


def _as_token(value: Any) -> Any:
    """An AddedToken where a file spells one out, else the value."""
    if isinstance(value, Mapping) and "content" in value:
        fields = AddedToken.__dataclass_fields__
        return AddedToken(**{key: field for key, field in value.items() if key in fields})
    return value


def write_arguments(
    directory: Path, arguments: Mapping[str, Any], added: Mapping[int, AddedToken], vocab_size: int
) -> list[str]:
    """Write all but the vocabulary; the paths are returned."""
    decoder = {str(index): asdict(token) for index, token in added.items()}
    paths = [write_json(directory / CONFIG_FILE, {**arguments, "added_tokens_decoder": decoder})]
    behind = {token.content: index for index, token in added.items() if index >= vocab_size}
    if behind:
        paths.append(write_json(directory / ADDED_TOKENS_FILE, behind))
    return paths


def write_json(path: Path, content: Mapping[str, Any]) -> str:
    """Write a JSON file as the published tokenizers do; its path is returned."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return str(path)
