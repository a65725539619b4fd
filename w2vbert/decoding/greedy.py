"""From CTC logits to a transcript: words with frames and confidences along the best path.

Source: Graves et al., "Connectionist temporal classification" (2006), section 3.2, best path decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer


@dataclass(frozen=True)
class Word:
    """A word in the logit frames [start_frame, end_frame).

    confidence: mean posterior of its tokens, 0 to 1.
    """

    word: str
    start_frame: int
    end_frame: int
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """What was said in one clip.

    confidence: mean posterior of all tokens that are not blank, word delimiters among them; None where there
    is no such token, for then nothing was claimed.
    """

    text: str
    words: tuple[Word, ...]
    confidence: float | None


def best_path(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The best id of each frame and its posterior; a batch may be packed or padded, frames do not mix.

    Args:
        logits: (..., vocab), logits or log probabilities, on any device.

    Returns:
        ids (...) int64 and posteriors (...) float32 in 0 to 1.
    """
    best, ids = logits.max(dim=-1)
    return ids, torch.exp(best.float() - torch.logsumexp(logits.float(), dim=-1))


def read_path(
    ids: Sequence[int] | NDArray[np.int64] | Tensor,
    posteriors: NDArray[np.float32] | Tensor,
    tokenizer: Wav2Vec2CTCTokenizer,
) -> Transcript:
    """The transcript of one clip's path.

    Text and word frames are those of the published `decode(ids, output_word_offsets=True)`. A token's
    posterior is the mean over the frames that emit it.

    Args:
        ids: (frames,) from `best_path`.
        posteriors: (frames,) likewise.
    """
    collapsed = tokenizer.collapse_path(ids)
    cumulated = np.concatenate([[0.0], np.cumsum(np.asarray(posteriors, np.float64))])
    starts, ends = np.asarray(collapsed.starts, np.int64), np.asarray(collapsed.ends, np.int64)
    tokens = (cumulated[ends] - cumulated[starts]) / np.maximum(ends - starts, 1)
    words = tuple(
        Word(offset["word"], offset["start_offset"], offset["end_offset"], float(tokens[first:last].mean()))
        for offset, (first, last) in zip(collapsed.word_offsets(), collapsed.words(), strict=True)
    )
    confidence = float(tokens.mean()) if len(tokens) else None
    return Transcript(tokenizer.text_of(collapsed), words, confidence)
