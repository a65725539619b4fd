"""Many texts to token ids: what the tokenizer makes of each, for a million of them in seconds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.training.examples.index import Ints, Ragged

if TYPE_CHECKING:
    from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer

_TEXTS = 65_536  # at once
_NOT_ASKED, _NOT_ONE = -2, -1


class Spelling:
    """A tokenizer's ids of texts, as labels.

    A text of characters that have one token each is looked up, character by character, in a table that the
    tokenizer filled; any other is left to the tokenizer.
    """

    def __init__(self, tokenizer: Wav2Vec2CTCTokenizer) -> None:
        self._tokenizer, self._delimiter = tokenizer, tokenizer.word_delimiter_token
        special = tokenizer.convert_tokens_to_ids(tokenizer.all_special_tokens)
        self._no_text = frozenset(special) - {tokenizer.word_delimiter_token_id}
        # Tokens that are found in a text as a whole, some of them with the blanks beside them.
        whole = [str(token) for token in tokenizer.added_tokens_decoder.values()]
        self._whole = re.compile("|".join(map(re.escape, whole)) or "(?!)")
        self._table: Ints = np.full(0x110000, _NOT_ASKED, np.int32)

    def __call__(self, texts: Sequence[str]) -> tuple[Ragged, npt.NDArray[np.bool_]]:
        """The tokens of texts; none, and true, of those that cannot be spelled."""
        parts = [self._spell(texts[start : start + _TEXTS]) for start in range(0, len(texts), _TEXTS)]
        values = np.concatenate([np.zeros(0, np.int32), *(tokens.values for tokens, _ in parts)])
        lengths = np.concatenate([np.zeros(1, np.int64), *(tokens.lengths for tokens, _ in parts)])
        unspelled = np.concatenate([np.zeros(0, np.bool_), *(mask for _, mask in parts)])
        return Ragged(values, np.cumsum(lengths)), unspelled

    def ids(self, text: str) -> list[int] | None:
        """None where a character has no token, or tokens that are no text stand in it, such as `[PAD]`."""
        if self._delimiter is not None and self._delimiter in text:
            return None
        try:
            ids = self._tokenizer.encode(text, verbose=False)
        except ValueError:  # there is no token for what is unknown
            return None
        return ids if self._no_text.isdisjoint(ids) else None

    def _spell(self, texts: Sequence[str]) -> tuple[Ragged, npt.NDArray[np.bool_]]:
        joined = "".join(texts)
        tokens = self._look_up(np.frombuffer(joined.encode("utf-32-le"), np.uint32))
        lengths = np.array([len(text) for text in texts])
        ends = np.cumsum(lengths)
        hard = np.diff(np.searchsorted(np.flatnonzero(tokens == _NOT_ONE), ends), prepend=0) > 0
        if self._whole.search(joined):
            hard |= [self._whole.search(text) is not None for text in texts]

        spelled = {text: self.ids(texts[text]) for text in np.flatnonzero(hard).tolist()}
        looked_up = tokens[np.repeat(~hard, lengths)]
        for text, ids in spelled.items():
            lengths[text] = len(ids or ())
        values = np.empty(lengths.sum(), np.int32)
        values[np.repeat(~hard, lengths)] = looked_up
        values[np.repeat(hard, lengths)] = [token for ids in spelled.values() for token in ids or ()]
        unspelled = np.zeros(len(texts), np.bool_)
        unspelled[[text for text, ids in spelled.items() if ids is None]] = True
        return Ragged(values, np.concatenate(([0], np.cumsum(lengths)))), unspelled

    def _look_up(self, codes: npt.NDArray[np.uint32]) -> Ints:
        """The token of each character; `_NOT_ONE` where it has none, or several."""
        tokens = self._table[codes]
        for code in np.unique(codes[tokens == _NOT_ASKED]).tolist():
            ids = self.ids(chr(code))
            self._table[code] = ids[0] if ids is not None and len(ids) == 1 else _NOT_ONE
        return self._table[codes]
