"""Beam search over recordings of any length: searched from pause to pause, for a search keeps every frame.

To the language model a segment is a sentence: its context is empty at the start of each.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise, product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from w2vbert.arrays import runs

if TYPE_CHECKING:
    from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer

MAX_FRAMES = 3_000  # of a segment: a minute. A search among all spellings takes up to 120 KB for each frame.


@dataclass(frozen=True, eq=False)
class TokenPath:
    """A path through a segment. ids, posteriors: (frames,) of a token for each frame; score: the search's."""

    ids: NDArray[np.int64]
    posteriors: NDArray[np.float32]
    score: float


def search_in_segments(
    search: Callable[[Tensor], Iterable[TokenPath]],
    logits: Tensor,
    tokenizer: Wav2Vec2CTCTokenizer,
    *,
    nbest: int,
    longest: int = MAX_FRAMES,
) -> list[TokenPath]:
    """The best paths through a recording, best first, of different texts; scores add up over segments.

    Args:
        search: the paths through (frames, vocab) logits, best first.
        logits: (frames, vocab).
        nbest: how many paths to return, at most.
        longest: most frames to search at once.
    """
    found: list[TokenPath] = []
    for start, end in cut_at_pauses(logits, tokenizer, longest):
        paths = list(islice(_of_different_texts(search(logits[start:end]), tokenizer), nbest))
        found = _joined(found, paths, nbest) if start else paths
    return list(_of_different_texts(found, tokenizer))


def cut_at_pauses(logits: Tensor, tokenizer: Wav2Vec2CTCTokenizer, longest: int) -> list[tuple[int, int]]:
    """(start, end) of segments of (frames, vocab) logits: `longest` frames at most, half of it at least.

    A cut is behind the last word delimiter of the longest pause, so that it parts words. Without any
    delimiter it is in the midst of the longest pause, and in the absence of pauses after `longest` frames.
    """
    if len(logits) <= longest:
        return [(0, len(logits))] if len(logits) else []
    ids = logits.argmax(-1).cpu().numpy()
    bounds = [0]
    while len(ids) - bounds[-1] > longest:
        earliest, latest = bounds[-1] + (longest + 1) // 2, bounds[-1] + longest
        bounds.append(earliest + _pause(ids[earliest:latest], tokenizer))
    return list(pairwise([*bounds, len(ids)]))


def _pause(ids: NDArray[np.int64], tokenizer: Wav2Vec2CTCTokenizer) -> int:
    """Where in (frames,) ids of a best path to cut."""
    delimiters = ids == tokenizer.word_delimiter_token_id
    starts, stops = runs(delimiters | (ids == tokenizer.pad_token_id))
    pauses: list[tuple[int, int]] = list(zip(starts.tolist(), stops.tolist(), strict=True))
    between_words = [pause for pause in pauses if delimiters[slice(*pause)].any()]
    if not pauses:
        return len(ids)
    start, end = max(between_words or pauses, key=lambda pause: pause[1] - pause[0])
    if between_words:
        return start + int(np.flatnonzero(delimiters[start:end])[-1]) + 1
    return (start + end + 1) // 2


def _of_different_texts(paths: Iterable[TokenPath], tokenizer: Wav2Vec2CTCTokenizer) -> Iterator[TokenPath]:
    seen = set()
    for path in paths:
        text = " ".join(tokenizer.collapse_path(path.ids).text().split())
        if text not in seen:
            seen.add(text)
            yield path


def _joined(before: list[TokenPath], after: list[TokenPath], nbest: int) -> list[TokenPath]:
    """The `nbest` best of all paths before followed by all paths after."""
    best = heapq.nlargest(nbest, product(before, after), key=lambda pair: pair[0].score + pair[1].score)
    return [
        TokenPath(
            np.concatenate([first.ids, second.ids]),
            np.concatenate([first.posteriors, second.posteriors]),
            first.score + second.score,
        )
        for first, second in best
    ]
