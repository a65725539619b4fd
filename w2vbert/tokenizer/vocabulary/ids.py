"""Tokens and their ids: one vocabulary or one for each language, and the tokens added to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from w2vbert.fields import (
    MAX_TOKENS,
    ConfigError,
    enumerate_names,
    fields_of,
    mapping,
    shown,
    text,
    whole,
)
from w2vbert.tokenizer.vocabulary.added import AddedToken


class Vocabulary:
    """Ids by token, tokens by id.

    Where a token of the file was added under another id too, text is encoded with the added id and ids are
    decoded with the file, as published.

    Args:
        content: {token: id}, or {language: {token: id}} with `target_lang`.
        target_lang: the language to begin with.
        source: the file, for messages.

    Raises:
        ConfigError: nested without a language, flat with one, a language that is not there, or an id that is
            none or that of two tokens.
    """

    def __init__(self, content: Mapping[str, Any], target_lang: str | None, source: str) -> None:
        self.content = dict(content)
        self.source = source
        self.added: dict[int, AddedToken] = {}
        self.encoder: dict[str, int] = {}
        self._select(target_lang)

    @property
    def decoder(self) -> dict[int, str]:
        return self._decoder

    def _select(self, target_lang: str | None) -> None:
        with fields_of(self.source):
            encoder = self._of_language(target_lang)
            decoder: dict[int, str] = {}
            for token, index in encoder.items():
                try:
                    other = decoder.setdefault(whole("", index, 0, MAX_TOKENS - 1), text("", token))
                except ConfigError as error:
                    raise ConfigError(f"the id of {shown(token)}", error.reason) from None
                if other is not token:
                    raise ConfigError(f"the id of {shown(token)}", f"is {index}, as that of {shown(other)}")
        self.encoder, self._decoder, self.target_lang = dict(encoder), decoder, target_lang

    def _of_language(self, target_lang: str | None) -> Mapping[str, Any]:
        nested = any(isinstance(value, Mapping) for value in self.content.values())
        languages = enumerate_names(list(self.content)) if nested else ""
        if target_lang is None:
            if nested:
                raise ConfigError(
                    "target_lang", f"there is a vocabulary per language: give target_lang, one of {languages}"
                )
            return self.content
        if not nested:
            raise ConfigError("target_lang", "cannot be set: there is one vocabulary, not several")
        if text("target_lang", target_lang) not in self.content:
            raise ConfigError("target_lang", f"there is no language {target_lang!r}, only {languages}")
        return mapping(f"the vocabulary of {target_lang!r}", self.content[target_lang])

    def set_target_lang(self, target_lang: str) -> None:
        """Change the language. Tokens of the old one go, and added ones whose place the new one needs."""
        old = self.encoder
        self._select(target_lang)
        self.restore({index: token for index, token in self.added.items() if token.content not in old})

    def restore(self, added: Mapping[int, AddedToken]) -> None:
        """Take added tokens with their saved ids, but for those that the vocabulary contradicts."""
        self.added = {
            index: token
            for index, token in added.items()
            if self.encoder.get(token.content, index) == index
            and self._decoder.get(index, token.content) == token.content
        }

    def add(self, tokens: Iterable[AddedToken], special: bool) -> int:
        """Add tokens behind the others, or mark those that exist as whole; how many were new is returned.

        The next id is the number of tokens, as published, unless another token has it: ids may have gaps.
        """
        ids = self.ids()
        size, taken = len(ids), {*self._decoder, *self.added}
        for token in tokens:
            if not token.content:
                continue
            index = ids.get(token.content, len(ids))
            while token.content not in ids and index in taken:
                index += 1
            ids[token.content] = index
            taken.add(index)
            self.added[index] = replace(token, special=True) if special else token
            whole("the number of tokens", len(ids), 0, MAX_TOKENS)
        return len(ids) - size

    def ids(self) -> dict[str, int]:
        """The id of every token."""
        return {**self.encoder, **{self.added[index].content: index for index in sorted(self.added)}}

    def token(self, index: int, unknown: str | None = None) -> str | None:
        """The token of an id, or `unknown`."""
        if index in self._decoder:
            return self._decoder[index]
        return self.added[index].content if index in self.added else unknown
