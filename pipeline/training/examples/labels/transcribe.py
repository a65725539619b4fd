"""Texts as tokens, for connectionist temporal classification."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.training.examples.frames import output_frames
from pipeline.training.examples.index import Ragged
from pipeline.training.examples.labels import Labels, Reason, Reasons, labels_of
from pipeline.training.examples.labels.spelling import Spelling
from pipeline.training.examples.text import TextSettings, normalise

if TYPE_CHECKING:
    from w2vbert.config import Wav2Vec2BertConfig
    from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer

_SHOWN = 200  # characters of a text in a detail


@dataclass(frozen=True)
class Transcribe:
    """Labels for `transcribe`.

    Attributes:
        column: of the texts.
        tokenizer: spells normalised texts; a text that it cannot spell is not learned from.
        config: says how many frames the head reads of a clip.
    """

    column: str
    settings: TextSettings
    tokenizer: Wav2Vec2CTCTokenizer
    config: Wav2Vec2BertConfig

    def __call__(self, rows: pa.Table) -> Labels:
        """Each text is spelled once, however many rows have it."""
        encoded = rows[self.column].combine_chunks().dictionary_encode()
        texts = [normalise(text, self.settings) for text in encoded.dictionary.to_pylist()]
        missing = encoded.indices.is_null().to_numpy(zero_copy_only=False)
        text_of = encoded.indices.fill_null(
            len(texts)
        ).to_numpy()  # rows without a text have that after the last
        texts.append("")
        tokens, unspelled = self._spelling(texts)

        why = Reasons(len(rows))
        why.give(missing, Reason.NO_LABEL)
        why.give(np.array([not text for text in texts])[text_of], Reason.EMPTY_LABEL)
        for row in why.give(unspelled[text_of], Reason.UNKNOWN_CHARACTERS):
            text = texts[text_of[row]]
            why.details[row] = f"{self._unknown(text)} in: {text[:_SHOWN]}"
        needed, frames = (
            needed_frames(tokens)[text_of],
            output_frames(self.config, rows["clip.frames"].to_numpy()),
        )
        for row in why.give(needed > frames, Reason.LABEL_TOO_LONG):
            text, length = texts[text_of[row]], tokens.lengths[text_of[row]]
            why.details[row] = (
                f"{length} tokens need {needed[row]} frames, there are {frames[row]}: {text[:_SHOWN]}"
            )
        return labels_of(tokens.take(text_of), why)

    def _unknown(self, text: str) -> str:
        """What of a text has no token."""
        found = [character for character in dict.fromkeys(text) if self._spelling.ids(character) is None]
        return "".join(found) or "a special token"

    @cached_property
    def _spelling(self) -> Spelling:
        return Spelling(self.tokenizer)


def needed_frames(tokens: Ragged) -> npt.NDArray[np.int64]:
    """Frames that each sequence of tokens needs at least: between two equal ones stands a blank.

    Source: Graves et al. 2006, "Connectionist temporal classification", section 3.1.
    """
    equal = np.zeros(len(tokens.values) + 1, np.bool_)
    equal[1:-1] = tokens.values[1:] == tokens.values[:-1]
    equal[tokens.offsets] = False  # neighbours of two sequences
    repeats = np.diff(np.searchsorted(np.flatnonzero(equal), tokens.offsets))
    needed: npt.NDArray[np.int64] = tokens.lengths + repeats
    return needed
