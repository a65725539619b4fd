"""From one id per frame to characters and words: the many-to-one map of CTC, with the frames kept.

Source: Graves et al., "Connectionist temporal classification" (2006), section 3.1; offsets as the published
Wav2Vec2 tokenizer counts them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from w2vbert.arrays import runs
from w2vbert.outputs import ModelOutput

Ids = NDArray[np.int64]
Offsets = list[dict[str, Any]]
TokenIds = int | Sequence[int] | np.ndarray[Any, Any] | torch.Tensor

_CLEAN_UP = {
    **{f" {mark}": mark for mark in ".?!,"},
    " ' ": "'",
    **{f" {ending}": ending for ending in ("n't", "'m", "'s", "'ve", "'re")},
}


@dataclass(frozen=True)
class CollapsedPath:
    """What a sequence of ids emits, one entry for each run of equal ids that is no blank.

    symbols: what it reads as. starts, ends: its first frame, and one past its last. delimiter: the symbol
    between words.
    """

    symbols: list[str]
    starts: list[int]
    ends: list[int]
    delimiter: str

    def text(self, separator: str = "") -> str:
        return separator.join(self.symbols).strip()

    def words(self) -> list[tuple[int, int]]:
        """First and one-past-last entry of every segment without a delimiter."""
        starts, stops = runs(np.array([symbol != self.delimiter for symbol in self.symbols], bool))
        return list(zip(starts.tolist(), stops.tolist(), strict=True))

    def char_offsets(self) -> Offsets:
        """{"char", "start_offset", "end_offset"} for each entry, in frames; an end is one past the last."""
        return [
            {"char": symbol, "start_offset": start, "end_offset": end}
            for symbol, start, end in zip(self.symbols, self.starts, self.ends, strict=True)
        ]

    def word_offsets(self) -> Offsets:
        """{"word", "start_offset", "end_offset"} for each word, in frames."""
        return [
            {
                "word": "".join(self.symbols[first:last]),
                "start_offset": self.starts[first],
                "end_offset": self.ends[last - 1],
            }
            for first, last in self.words()
        ]


class PathCollapser:
    """Collapses sequences of ids.

    Args:
        tokens: the token of each id; the last one stands for all ids beyond. None: there is no such token.
        blank: the token that emits nothing.
        delimiter: the token between words, which reads as `replacement`.
        special: tokens that are left out on demand, the delimiter apart.
    """

    def __init__(
        self,
        tokens: Sequence[str | None],
        blank: str | None,
        delimiter: str | None,
        replacement: str,
        special: Collection[str] = (),
    ) -> None:
        # Ids that read the same are the same to CTC, so the lowest one stands for all of them.
        lowest: dict[str | None, int] = {}
        self._canonical = np.array([lowest.setdefault(token, index) for index, token in enumerate(tokens)])
        self._blank = lowest.get(blank, -1) if blank is not None else -1
        self._symbols = [replacement if token == delimiter is not None else token for token in tokens]
        self._replacement = replacement
        special = frozenset(special)
        self._special = np.array([token in special and token != delimiter for token in tokens])

    def __call__(self, ids: Ids, skip_special: bool = False, group: bool = True) -> CollapsedPath:
        """Collapse (frames,) ids.

        Args:
            skip_special: leave special tokens out before anything else.
            group: merge equal neighbours; False for ids that are no frames, such as labels.

        Raises:
            ValueError: an id without a token.
        """
        beyond = len(self._canonical) - 1
        canonical = self._canonical[np.where((ids >= 0) & (ids < beyond), ids, beyond)]
        if skip_special:
            canonical = canonical[~self._special[canonical]]
        starts = np.arange(len(canonical))
        if group:
            starts = starts[np.diff(canonical, prepend=-1) != 0]
        ends = np.append(starts[1:], len(canonical))[: len(starts)]
        emitted = canonical[starts] != self._blank
        starts, ends = starts[emitted], ends[emitted]
        symbols = [self._symbols[index] for index in canonical[starts].tolist()]
        known = [symbol for symbol in symbols if symbol is not None]
        if len(known) < len(symbols):
            raise ValueError("an id is not in the vocabulary, and there is no unk_token")
        return CollapsedPath(known, starts.tolist(), ends.tolist(), self._replacement)


class Wav2Vec2CTCTokenizerOutput(ModelOutput):
    """A decoded text, or the texts of a batch, with the offsets that were asked for.

    char_offsets: {"char", "start_offset", "end_offset"} for each character; word_offsets: the same of words.
    Offsets count the ids that were decoded, which are frames of the logits; an end is one past the last.
    """

    text: str | list[str]
    char_offsets: Any
    word_offsets: Any


def as_ids(token_ids: TokenIds) -> Ids:
    """(n,) from ids of any kind; a single id is a sequence of one.

    Raises:
        TypeError: what are no ids, such as logits, or the ids of several sequences.
    """
    if isinstance(token_ids, torch.Tensor):
        token_ids = token_ids.detach().cpu().numpy()
    try:
        ids = np.asarray(token_ids)
    except ValueError as error:
        raise TypeError(
            "these are ids of several sequences: batch_decode reads those, decode reads one"
        ) from error
    if ids.size and ids.dtype.kind not in "iu":
        what = "logits? Take their argmax(-1) first" if ids.dtype.kind == "f" else "give whole numbers"
        raise TypeError(f"token ids are whole numbers, not {ids.dtype} of shape {ids.shape}: {what}")
    if ids.ndim > 1:
        raise TypeError(
            f"decode reads the ids of one sequence, not of shape {ids.shape}: batch_decode reads several, "
            "and logits need their argmax(-1) first"
        )
    return ids.astype(np.int64).reshape(-1)


def cleaned_up(text: str) -> str:
    """No space before punctuation and English contractions."""
    for spaced, plain in _CLEAN_UP.items():
        text = text.replace(spaced, plain)
    return text
