"""What becomes of the ids of a text, or of a pair of texts: cut, joined, and described.

A CTC tokenizer adds no special tokens: a pair is one text after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from w2vbert.features.padding import Padding, truncated_length

Ids = list[int]


@dataclass(frozen=True)
class Truncation:
    """Where and how sequences are cut.

    Attributes:
        length: how long they may be; None: they stay whole.
        strategy: "longest_first", "only_first" or "only_second" of a pair.
        side: which end goes, "right" or "left".
        stride: how many tokens that stay are told among the overflowing ones.
    """

    length: int | None = None
    strategy: str = "longest_first"
    side: str = "right"
    stride: int = 0

    def __call__(self, first: Ids, second: Ids | None) -> tuple[Ids, Ids | None, Ids]:
        """What stays of a text and its pair, and what overflows."""
        excess = 0 if self.length is None else len(first) + len(second or ()) - self.length
        if excess <= 0:
            return first, second, []
        if self.strategy == "only_second":
            if second is None:
                return first, None, []
            return first, self._cut(second, excess), self._overflow(second, excess)
        if self.strategy == "only_first" or second is None:
            return self._cut(first, excess), second, self._overflow(first, excess)
        of_first, of_second = self._shares(len(first), len(second), excess)
        return self._cut(first, of_first), self._cut(second, of_second), []

    @staticmethod
    def _shares(first: int, second: int, excess: int) -> tuple[int, int]:
        """How much each of a pair loses: the longer one down to the other, then both alike."""
        of_longer = min(abs(second - first), excess)
        rest = excess - of_longer
        half = rest // 2
        return (of_longer + half, rest - half) if first > second else (half, of_longer + rest - half)

    def _cut(self, ids: Ids, excess: int) -> Ids:
        kept = max(len(ids) - excess, 0)
        return ids[:kept] if self.side == "right" else ids[len(ids) - kept :]

    def _overflow(self, ids: Ids, excess: int) -> Ids:
        window = min(len(ids), self.stride + excess)
        return ids[len(ids) - window :] if self.side == "right" else ids[:window]


@dataclass(frozen=True)
class Encoding:
    """How texts are to be encoded: the published arguments of a call that are not texts or lengths.

    Attributes:
        words: a text is a list of words.
        split: spell tokens that stand in the text; None: as the tokenizer is set.
        verbose: tell of characters without a token.
        truncation, padding, stride, multiple: as published.
        layout: further arguments for `pad`.
        wanted: the entries to return, beside ids and mask.
    """

    words: bool
    split: bool | None
    verbose: bool
    truncation: bool | str | None
    padding: Padding
    stride: int
    multiple: int | None
    layout: Mapping[str, Any]
    wanted: frozenset[str]

    def rule(self, max_length: int | None, model_max_length: int, side: str) -> Truncation:
        """Where to cut.

        Raises:
            ValueError: an unknown `truncation`, or a length that padding could not keep to.
        """
        truncation = self.truncation
        if truncation is None:
            truncation = max_length is not None and self.padding is False
        length = model_max_length if max_length is None else max_length
        limit = truncated_length(truncation, length, self.padding, self.multiple)
        strategy = "longest_first" if isinstance(truncation, bool) else truncation
        return Truncation(limit, strategy, side, self.stride)


def described(
    first: Ids, second: Ids | None, truncation: Truncation, wanted: frozenset[str]
) -> dict[str, Any]:
    """`input_ids` of a text and its pair, and of the other published entries those that are wanted.

    `token_type_ids` are 0 for the text and, with "pairs", 1 for its pair; `special_tokens_mask` is 1 for
    special tokens that were added, of which there are none.

    Raises:
        ValueError: overflowing tokens of a pair where both may be cut.
    """
    if "overflowing_tokens" in wanted and second is not None and truncation.strategy == "longest_first":
        raise ValueError("truncation must be 'only_first' or 'only_second' for a pair to tell what overflows")
    whole = len(first) + len(second or ())
    first, second, overflow = truncation(first, second)
    ids = first + (second or [])
    entries = {
        "input_ids": ids,
        "token_type_ids": [0] * len(first) + [int("pairs" in wanted)] * len(second or ()),
        "special_tokens_mask": [0] * len(ids),
        "overflowing_tokens": overflow,
        "num_truncated_tokens": whole - (truncation.length or 0) if overflow else 0,
        "length": len(ids),
    }
    return {name: value for name, value in entries.items() if name == "input_ids" or name in wanted}


def pairs(text: Any, text_pair: Any, words: bool) -> tuple[list[tuple[Any, Any]], bool]:
    """The texts of a call with their pairs, or None, and whether it is a batch.

    A text is given as such, as a list of ids, or with `words` as a list of words; a batch is a list of these
    or of pairs of these.

    Raises:
        ValueError: text and pair of which one is a batch and the other is not, or more than two texts in one.
    """
    if isinstance(text, str) or _is_one(text, words):
        return [(text, text_pair)], False
    if text_pair is None:
        return [_pair(item, words) for item in text], True
    if isinstance(text_pair, str) or len(text_pair) != len(text):
        raise ValueError("text is a batch: text_pair must be a batch of as many texts")
    return list(zip(text, text_pair, strict=True)), True


def _is_one(text: Sequence[Any], words: bool) -> bool:
    return len(text) > 0 and isinstance(text[0], (int, str) if words else int)


def _pair(item: Any, words: bool) -> tuple[Any, Any]:
    if isinstance(item, str) or (len(item) and isinstance(item[0], int)):
        return item, None
    if words and not isinstance(item, tuple):
        return item, None
    if len(item) != 2:
        raise ValueError(
            f"a pair has two texts, not {len(item)} (words of one text: is_split_into_words=True)"
        )
    return item[0], item[1]
