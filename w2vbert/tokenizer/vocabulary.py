"""Tokens and their ids: one vocabulary or one for each language, and the tokens added to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
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


@dataclass(frozen=True)
class AddedToken:
    """A token found in text as a whole, before the rest is spelled.

    lstrip, rstrip: take the white space on that side along. single_word: only between spaces.
    """

    content: str
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False
    special: bool = False

    def __str__(self) -> str:
        return self.content

    @classmethod
    def like(cls, value: object) -> AddedToken | None:
        """A token from text, or from an object with these attributes, as other libraries have; else None."""
        if isinstance(value, AddedToken):
            return value
        if isinstance(value, str):
            return cls(value)
        names = [one.name for one in fields(cls)]
        return cls(**{name: getattr(value, name) for name in names}) if _has_all(value, names) else None

    def lowered(self) -> AddedToken:
        """As it is found in text that is made lower case, if it is to be normalised."""
        normalized = self.normalized and not self.special
        return replace(self, content=self.content.lower()) if normalized else self


def _has_all(value: object, names: Iterable[str]) -> bool:
    return all(hasattr(value, name) for name in names)


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


class TokenSplitter:
    """Cuts text at the tokens that are kept whole; at each place the longest one counts."""

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        self.tokens = {token.content: token for token in tokens}

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        """Made when text is first split: of a large vocabulary it takes seconds."""
        longest_first = sorted(self.tokens, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if self.tokens else None

    def __call__(self, text: str) -> list[str]:
        """The tokens and what lies between them, in order; empty parts may be among them."""
        if self._pattern is None:
            return [text]
        parts = [part for part in self._pattern.split(text) if part]
        for place, part in enumerate(parts):
            token = self.tokens.get(part)
            if token is None:
                continue
            before = parts[place - 1] if place else ""
            after = parts[place + 1] if place + 1 < len(parts) else ""
            if token.rstrip and after:
                parts[place + 1] = after.lstrip()
            if token.lstrip and before:
                parts[place - 1] = before.rstrip()
            if token.single_word and before and not before.endswith(" "):
                parts[place - 1] += part
                parts[place] = ""
            elif token.single_word and after and not after.startswith(" "):
                parts[place + 1] = part + parts[place + 1]
                parts[place] = ""
        return parts
