"""From one id per frame to characters and words: the many-to-one map of CTC, with the frames kept.

Source: Graves et al., "Connectionist temporal classification" (2006), section 3.1; offsets as the published
Wav2Vec2 tokenizer counts them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Offsets = list[dict[str, Any]]


@dataclass(frozen=True)
class Reading:
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
        """First and one-past-last entry of every stretch without a delimiter."""
        inside = np.array([False, *(symbol != self.delimiter for symbol in self.symbols), False])
        edges = np.flatnonzero(np.diff(inside)).tolist()
        return list(zip(edges[::2], edges[1::2], strict=True))

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


class Reader:
    """Reads sequences of ids.

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
        self._special = np.array([token in special and token != delimiter for token in tokens])

    def __call__(self, ids: Ids, skip_special: bool = False, group: bool = True) -> Reading:
        """The reading of (frames,) ids.

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
        return Reading(known, starts.tolist(), ends.tolist(), self._replacement)
