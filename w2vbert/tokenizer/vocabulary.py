"""Tokens and their ids: one vocabulary or one for each language, and the tokens added to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any


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


class Vocabulary:
    """Ids by token, tokens by id.

    Where a token of the file was added under another id too, text is encoded with the added id and ids are
    decoded with the file, as published.

    Args:
        content: {token: id}, or {language: {token: id}} with `target_lang`.
        target_lang: the language to begin with.
        source: the file, for messages.

    Raises:
        ValueError: nested without a language, flat with one, a language that is not there, or an id that is
            none.
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
        nested = any(isinstance(value, Mapping) for value in self.content.values())
        languages = ", ".join(sorted(self.content)) if nested else ""
        if nested and target_lang is None:
            raise ValueError(
                f"{self.source} has a vocabulary per language: give target_lang, one of {languages}"
            )
        if not nested and target_lang is not None:
            raise ValueError(f"{self.source} has one vocabulary, not several: target_lang cannot be set")
        if nested and target_lang not in self.content:
            raise ValueError(f"{self.source} has no language {target_lang!r}, only {languages}")
        encoder = self.content[target_lang] if target_lang is not None else self.content
        for token, index in encoder.items():
            if not isinstance(index, int) or index < 0:
                raise ValueError(f"{self.source}: the id of {token!r} should be 0 or more, not {index!r}")
        self.encoder, self.target_lang = dict(encoder), target_lang
        self._decoder = {index: token for token, index in self.encoder.items()}

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

    def add(self, tokens: Iterable[str | AddedToken], special: bool) -> int:
        """Add tokens after the last id, or mark those that exist as whole; how many were new is returned."""
        ids = self.ids()
        size = len(ids)
        for token in tokens:
            if isinstance(token, str):
                token = AddedToken(token)
            if not token.content:
                continue
            if special:
                token = replace(token, special=True)
            self.added[ids.setdefault(token.content, len(ids))] = token
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
        longest_first = sorted(self.tokens, key=len, reverse=True)
        self._pattern = (
            re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if self.tokens else None
        )

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
