"""Texts as people write them, in the tokens of a vocabulary: for forced alignment and for training labels."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer


@dataclass(frozen=True)
class SpelledWord:
    """A word as it was written, and its tokens."""

    word: str
    ids: tuple[int, ...]


class TextNormaliser:
    """Spells the words of a text.

    A character takes the case that the vocabulary has. One that the vocabulary lacks loses its accent or is
    taken apart (ﬁ to fi); if that does not help it is dropped, as punctuation is. Special tokens in the text
    (<unk>) are dropped too.
    """

    def __init__(self, tokenizer: Wav2Vec2CTCTokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = set(tokenizer.all_special_tokens)
        self._ids = {
            token: index for token, index in tokenizer.get_vocab().items() if token not in self._special
        }
        self._as_known = cache(self._find)

    def __call__(self, text: str) -> list[SpelledWord]:
        """The words of a text, between white space, in order; words of which nothing is left are left out."""
        for token in self._special:
            text = text.replace(token, " ")
        spelled = ((word, self._spell(word)) for word in text.split())
        return [SpelledWord(word, ids) for word, ids in spelled if ids]

    def _spell(self, word: str) -> tuple[int, ...]:
        known = "".join(map(self._as_known, unicodedata.normalize("NFC", word)))
        return tuple(self._ids[token] for token in self._tokenizer.tokenize(known) if token in self._ids)

    def _find(self, character: str) -> str:
        for form in (character, character.lower(), character.upper()):
            if all(token in self._ids for token in self._tokenizer.tokenize(form)):
                return form
        parts = unicodedata.normalize("NFKD", character)
        return "".join(map(self._as_known, parts)) if parts != character else ""
