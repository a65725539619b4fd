"""Tokens that are found in text as a whole, before the rest is spelled."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
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


class TokenSplitter:
    """Cuts text at the tokens that are kept whole; at each place the longest one counts."""

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        self.tokens = {token.content: token for token in tokens}

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        """Made when text is first split: of a large vocabulary it takes seconds."""
        longest_first = sorted(self.tokens, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if self.tokens else None

    def __getstate__(self) -> dict[str, Any]:
        """Without the pattern: use does not change what is pickled, and caches know it by its hash."""
        return {"tokens": self.tokens}

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
