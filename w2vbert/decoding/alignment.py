"""Forced alignment: where in a clip the tokens of a known text are.

Source: Kürzinger et al., "CTC-segmentation of large corpora" (2020); Pratap et al., "Scaling speech
technology to 1,000+ languages" (2023), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from w2vbert.decoding.greedy import Word

if TYPE_CHECKING:
    from w2vbert.decoding.normalise import SpelledWord
    from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer


class AlignmentError(ValueError):
    """The tokens cannot be said in the frames there are."""


@dataclass(frozen=True)
class AlignedToken:
    """A token in the logit frames [start_frame, end_frame). score: mean log posterior over them."""

    id: int
    start_frame: int
    end_frame: int
    score: float


@dataclass(frozen=True, eq=False)
class Alignment:
    """The likeliest path that says the tokens.

    path: (frames,) an id for each frame. log_posteriors: (frames,) of those ids. tokens: in order.
    """

    path: NDArray[np.int64]
    log_posteriors: NDArray[np.float32]
    tokens: tuple[AlignedToken, ...]

    @property
    def score(self) -> float:
        """Mean log posterior of a frame, blanks included: 0 is certain; low where audio and text differ."""
        return float(self.log_posteriors.mean())


def align(logits: Tensor, ids: Sequence[int], blank: int = 0) -> Alignment:
    """Align the tokens of a text with the logits of its clip.

    Args:
        logits: (frames, vocab), logits or log probabilities; memory is up to 2 x frames x tokens bytes.
        ids: the text's ids, `tokenizer.encode(text)`; none: the clip should be silent.
        blank: id of the blank, `tokenizer.pad_token_id`.

    Raises:
        AlignmentError: too few frames for the tokens (a repeated token needs a blank in between), or a token
            that is blank or beyond the vocabulary.
    """
    from torchaudio.functional import forced_align  # late: few need it

    frames, vocabulary = logits.shape
    needed = len(ids) + sum(first == second for first, second in pairwise(ids))
    if not frames or needed > frames:
        raise AlignmentError(
            f"{len(ids)} tokens need {max(needed, 1)} frames or more, but there are {frames}"
        )
    for index in ids:
        if index == blank or not 0 <= index < vocabulary:
            raise AlignmentError(f"id {index} cannot be aligned: it is blank or beyond {vocabulary} classes")
    log_probs = logits.detach().float().log_softmax(-1)
    if len(ids):
        targets = torch.tensor([list(ids)], dtype=torch.int32, device=logits.device)
        path = forced_align(log_probs[None], targets, blank=blank)[0][0].long()
    else:
        path = torch.full((frames,), blank, device=logits.device)
    posteriors = log_probs.gather(1, path[:, None])[:, 0].cpu().numpy()
    return Alignment(path.cpu().numpy(), posteriors, _tokens(path.cpu().numpy(), posteriors, blank))


def _tokens(
    path: NDArray[np.int64], log_posteriors: NDArray[np.float32], blank: int
) -> tuple[AlignedToken, ...]:
    borders = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    return tuple(
        AlignedToken(int(path[start]), start, end, float(log_posteriors[start:end].mean()))
        for start, end in pairwise(borders)
        if path[start] != blank
    )


@dataclass(frozen=True)
class WordAlignment:
    """The words of a text in the frames of its clip.

    words: as they were written; confidence: mean posterior of its tokens. score: that of the `Alignment`.
    """

    words: tuple[Word, ...]
    score: float


def tokens_of(words: Sequence[SpelledWord], tokenizer: Wav2Vec2CTCTokenizer) -> list[int]:
    """The ids of spelled words, with word delimiters in between where the vocabulary has one."""
    delimiter = tokenizer.word_delimiter_token_id
    ids: list[int] = []
    for word in words:
        if ids and delimiter is not None:
            ids.append(delimiter)
        ids += word.ids
    return ids


def align_words(
    logits: Tensor, words: Sequence[SpelledWord], tokenizer: Wav2Vec2CTCTokenizer
) -> WordAlignment:
    """Align spelled words with the logits of their clip; see `align`.

    Raises:
        AlignmentError: as `align`.
    """
    blank, delimiter = tokenizer.pad_token_id, tokenizer.word_delimiter_token_id
    alignment = align(logits, tokens_of(words, tokenizer), 0 if blank is None else blank)
    tokens = [token for token in alignment.tokens if token.id != delimiter]
    posteriors = np.exp(alignment.log_posteriors)
    aligned = []
    first = 0
    for word in words:
        own = tokens[first : first + len(word.ids)]
        first += len(word.ids)
        confidence = np.mean([posteriors[token.start_frame : token.end_frame].mean() for token in own])
        aligned.append(Word(word.word, own[0].start_frame, own[-1].end_frame, float(confidence)))
    return WordAlignment(tuple(aligned), alignment.score)
