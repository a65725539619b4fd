"""Where long recordings are cut, and that nothing is lost there."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from w2vbert import Wav2Vec2CTCTokenizer
from w2vbert.decoding.beam import BeamDecoder, BeamOptions
from w2vbert.decoding.greedy import best_path, read_path
from w2vbert.decoding.segments import MAX_FRAMES, TokenPath, cut_at_pauses, search_in_segments

VOCAB = {"<pad>": 0, "|": 1, "a": 2, "b": 3, "c": 4}
BLANK, DELIMITER, A, B, C = range(5)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Wav2Vec2CTCTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.json"
    path.write_text(json.dumps(VOCAB))
    return Wav2Vec2CTCTokenizer(path, bos_token=None, eos_token=None, unk_token=None)


def saying(ids: list[int], sure: float = 0.96) -> torch.Tensor:
    """Log probabilities in which each frame is rather sure of its id."""
    probabilities = torch.full((len(ids), len(VOCAB)), (1 - sure) / (len(VOCAB) - 1))
    probabilities[range(len(ids)), ids] = sure
    return probabilities.log()


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 4), max_size=60), longest=st.integers(2, 20))
def test_segments_are_short_and_whole(tokenizer: Wav2Vec2CTCTokenizer, ids: list[int], longest: int) -> None:
    logits = saying(ids) if ids else torch.empty(0, 5)
    cut = cut_at_pauses(logits, tokenizer, longest)
    assert [start for start, _ in cut] == [0, *(end for _, end in cut)][: len(cut)]
    assert all(end == start for (_, end), (start, _) in pairwise(cut))
    assert (cut[-1][1] if cut else 0) == len(ids)
    assert all(end - start <= longest for start, end in cut)
    assert all(end - start >= longest / 2 for start, end in cut[:-1])


def test_cut_is_behind_the_delimiter_of_the_longest_pause(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    word, comma, stop = [A, B], [DELIMITER], [BLANK, DELIMITER, DELIMITER, BLANK, BLANK]
    ids = word * 5 + comma + word + stop + word * 6
    assert cut_at_pauses(saying(ids), tokenizer, 20) == [(0, 16), (16, len(ids))]
    # Pauses without a delimiter count only where none has one.
    assert cut_at_pauses(saying(word * 5 + comma + word + [BLANK] * 4 + word * 6), tokenizer, 20)[0] == (
        0,
        11,
    )
    assert cut_at_pauses(saying(word * 5 + [BLANK] * 4 + word * 6), tokenizer, 20)[0] == (0, 12)
    assert cut_at_pauses(saying(word * 15), tokenizer, 20) == [(0, 20), (20, 30)]


def test_best_of_all_combinations(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    """Two segments with three paths each: the best four of nine, by the sum of the scores."""
    readings = {0: [("a", 0.0), ("b", -1.0), ("c", -5.0)], 1: [("a", 0.0), ("b", -2.0), ("c", -2.5)]}
    logits = saying([A, DELIMITER, A, DELIMITER])

    calls = iter(range(2))

    def search(segment: torch.Tensor) -> list[TokenPath]:
        of_segment = readings[next(calls)]
        return [
            TokenPath(np.array([VOCAB[text], DELIMITER]), np.ones(2, np.float32), score)
            for text, score in of_segment
        ]

    paths = search_in_segments(search, logits, tokenizer, nbest=4, longest=2)
    texts = [tokenizer.text_of(tokenizer.collapse_path(path.ids)) for path in paths]
    assert texts == ["a a", "b a", "a b", "a c"]
    assert [path.score for path in paths] == [0.0, -1.0, -2.0, -2.5]


ARPA = """\\data\\
ngram 1=5
ngram 2=1

\\1-grams:
-2.0\t<unk>
-99\t<s>\t-0.1
-0.5\t</s>
-0.5\tab\t-0.1
-0.5\tc\t-0.1

\\2-grams:
-0.3\tab c

\\end\\
"""


@pytest.mark.slow
@pytest.mark.parametrize("lexicon", [None, ["ab", "c", "a"]])
def test_three_hours_by_repetition(
    tokenizer: Wav2Vec2CTCTokenizer, tmp_path: Path, lexicon: list[str] | None
) -> None:
    """The words of a sentence that is repeated for three hours, each at its place."""
    (tmp_path / "lm.arpa").write_text(ARPA)
    sentence = [A, A, B, BLANK, DELIMITER, C, C, DELIMITER] + [BLANK] * 92
    times = 5400
    logits = saying(sentence).repeat(times, 1)
    assert len(logits) == 540_000
    decoder = BeamDecoder(
        tokenizer,
        BeamOptions(beam_size=8, nbest=2),
        lexicon=lexicon,
        language_model=tmp_path / "lm.arpa" if lexicon else None,
    )
    best = decoder(logits)[0]
    assert best.transcript.text == " ".join(["ab c"] * times)
    starts = [word.start_frame for word in best.transcript.words]
    assert starts == [start for time in range(times) for start in (100 * time, 100 * time + 5)]


def test_segments_change_nothing_where_words_are_clear(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    """A recording of more than one segment, against greedy decoding and the search in one."""
    generator = torch.Generator().manual_seed(0)
    ids = []
    while len(ids) < 2 * MAX_FRAMES:
        letters = torch.randint(A, C + 1, (3,), generator=generator).tolist()
        ids += [each for letter in letters for each in (letter, BLANK)]
        ids += [DELIMITER] + [BLANK] * int(torch.randint(0, 30, (1,), generator=generator))
    logits = saying(ids)
    (found,) = BeamDecoder(tokenizer, BeamOptions(beam_size=5))(logits)
    greedy = read_path(*best_path(logits), tokenizer)
    assert found.transcript.text == greedy.text
    assert [w.start_frame for w in found.transcript.words] == [w.start_frame for w in greedy.words]
    assert found.score == pytest.approx(len(ids) * math.log(0.96), rel=1e-5)
