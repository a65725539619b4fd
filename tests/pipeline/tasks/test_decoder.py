"""From logits to readings and to the times of a reference: the options, and real speech."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jiwer
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.storage import Storage, StorageOptions
from pipeline.tasks.decoding import decoder as decoding
from pipeline.tasks.decoding.decoder import Decoder, Search, choose_search
from pipeline.tasks.decoding.files import DecodingFiles, read_decoding_files
from pipeline.tasks.decoding.options import TranscriptOptions
from tests.ngrams import DIGITS, arpa, lexicon
from w2vbert import Wav2Vec2CTCTokenizer
from w2vbert.decoding.greedy import best_path, read_path

STORAGE = Storage(StorageOptions())
CPU = torch.device("cpu")
Strings = list[tuple[dict[str, Any], Tensor]]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Wav2Vec2CTCTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.json"
    path.write_text(json.dumps({"<pad>": 0, "|": 1, "a": 2, "b": 3}))
    return Wav2Vec2CTCTokenizer(path, bos_token=None, eos_token=None, unk_token=None)


@pytest.fixture(scope="module")
def digits(shared_models: Path) -> Wav2Vec2CTCTokenizer:
    return Wav2Vec2CTCTokenizer.from_pretrained(shared_models / "digits-ctc")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A lexicon of the digits, and a language model of strings of digits that are not those spoken."""
    folder = tmp_path_factory.mktemp("language")
    chance = random.Random(0)
    texts = [" ".join(chance.choices(DIGITS, k=chance.randint(2, 7))) for _ in range(500)]
    (folder / "lm.arpa").write_text(arpa(texts))
    (folder / "lexicon.txt").write_text(lexicon())
    return {"lexicon": str(folder / "lexicon.txt"), "language_model": str(folder / "lm.arpa")}


def decoder(tokenizer: Wav2Vec2CTCTokenizer, **options: Any) -> Decoder:
    told = TranscriptOptions(**options)
    return Decoder(told, read_decoding_files(told, tokenizer, STORAGE), tokenizer, CPU)


@pytest.mark.parametrize(
    ("options", "on_gpu", "search"),
    [
        ({}, True, Search.GREEDY),
        ({"align": True}, True, Search.GREEDY),
        ({"nbest": 2}, True, Search.CUDA_BEAM),
        ({"beam_size": 9}, True, Search.CUDA_BEAM),
        ({"nbest": 2}, False, Search.BEAM),
        ({"lexicon": "words.txt"}, True, Search.BEAM),
        ({"language_model": "lm.arpa", "nbest": 2}, True, Search.BEAM),
    ],
)
def test_choice_of_the_search(options: dict[str, Any], on_gpu: bool, search: Search) -> None:
    assert choose_search(TranscriptOptions(**options), on_gpu=on_gpu) is search


@pytest.mark.parametrize(
    ("options", "needed"),
    [({}, False), ({"align": True}, True), ({"nbest": 2}, True), ({"beam_size": 1}, True)],
)
def test_logits_are_asked_for_where_they_are_needed(
    small: Wav2Vec2CTCTokenizer, options: dict[str, Any], needed: bool
) -> None:
    assert Decoder(TranscriptOptions(**options), DecodingFiles(), small, CPU).needs_logits is needed


def test_greedy_is_one_reading(small: Wav2Vec2CTCTokenizer) -> None:
    logits = 3 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    (reading,) = decoder(small).read(logits)
    assert reading.transcript == read_path(*best_path(logits), small)
    assert reading.score == pytest.approx(logits.log_softmax(-1).max(-1).values.sum().item(), rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(1, 60), nbest=st.integers(2, 6))
def test_nbest_are_sorted_and_different(
    small: Wav2Vec2CTCTokenizer, seed: int, frames: int, nbest: int
) -> None:
    logits = 3 * torch.randn(frames, 4, generator=torch.Generator().manual_seed(seed))
    readings = decoder(small, nbest=nbest).read(logits)
    scores = [reading.score for reading in readings]
    texts = [reading.transcript.text for reading in readings]
    assert 1 <= len(texts) == len(set(texts)) <= nbest
    assert scores == sorted(scores, reverse=True)
    assert scores[0] >= decoder(small).read(logits)[0].score - 1e-3


def said(text: str) -> Tensor:
    ids = {"-": 0, " ": 1, "a": 2, "b": 3}
    logits = torch.zeros(len(text), 4)
    logits[range(len(text)), [ids[letter] for letter in text]] = 5.0
    return logits


def test_words_keep_their_spelling(small: Wav2Vec2CTCTokenizer) -> None:
    aligned = decoder(small, align=True).align(said("-aa-a  bb-ba--"), "“Aa” 7, – B.B-A!")
    assert aligned is not None
    sure = said("a").softmax(-1).max().item()
    assert [(w.word, w.start_frame, w.end_frame) for w in aligned.words] == [
        ("“Aa”", 1, 5),
        ("B.B-A!", 7, 12),
    ]
    assert [w.confidence for w in aligned.words] == pytest.approx([sure, sure], rel=1e-5)
    assert aligned.score == pytest.approx(torch.tensor(sure).log().item(), rel=1e-5)


@pytest.mark.parametrize("reference", [None, "", "  ", "1984!", "aaaaaaaaaa"])
def test_what_cannot_be_aligned(small: Wav2Vec2CTCTokenizer, reference: str | None) -> None:
    """No reference, nothing of it in the vocabulary, more tokens than frames."""
    assert decoder(small, align=True).align(said("-a-b-"), reference) is None


def test_too_long_to_align(small: Wav2Vec2CTCTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_ALIGNED_CELLS", 5 * 3)
    aligner = decoder(small, align=True)
    assert aligner.align(said("-a b-"), "a b") is not None  # three tokens in five frames
    assert aligner.align(said("-a b--"), "a b") is None


# Real speech


def wer(decoder: Decoder, strings: Strings) -> float:
    read = [decoder.read(logits)[0].transcript.text for _, logits in strings]
    return float(jiwer.wer([clip["reference"] for clip, _ in strings], read))


def test_language_model_makes_fewer_errors(
    digits: Wav2Vec2CTCTokenizer, digit_strings: Strings, files: dict[str, str]
) -> None:
    greedy = wer(decoder(digits), digit_strings)
    words = wer(decoder(digits, lexicon=files["lexicon"]), digit_strings)
    model = wer(decoder(digits, **files, lm_weight=1.0), digit_strings)
    assert 0.05 < greedy < 0.1
    assert words < greedy / 4
    assert model <= words  # spoken digits come in any order, so that it has nothing to add


def test_nbest_of_real_speech(
    digits: Wav2Vec2CTCTokenizer, digit_strings: Strings, files: dict[str, str]
) -> None:
    several, one = decoder(digits, **files, nbest=5), decoder(digits, **files)
    oracle = []
    for clip, logits in digit_strings:
        readings = several.read(logits)
        texts = [reading.transcript.text for reading in readings]
        scores = [reading.score for reading in readings]
        assert len(texts) == len(set(texts))
        assert scores == sorted(scores, reverse=True)
        assert set(" ".join(texts).split()) <= set(DIGITS)
        assert readings[0] == one.read(logits)[0]
        oracle.append(min(jiwer.wer(clip["reference"], text) for text in texts))
    assert sum(oracle) < 0.5 * len(digit_strings) * wer(one, digit_strings)  # the right one is among them


@pytest.mark.skipif(shutil.which("build_binary") is None, reason="KenLM's build_binary is absent")
@pytest.mark.parametrize("kind", ["probing", "trie"])
def test_binary_models_are_the_same(
    digits: Wav2Vec2CTCTokenizer, digit_strings: Strings, files: dict[str, str], tmp_path: Path, kind: str
) -> None:
    binary = tmp_path / "lm.bin"
    subprocess.run(["build_binary", kind, files["language_model"], binary], check=True, capture_output=True)
    from_text = decoder(digits, **files)
    from_binary = decoder(digits, lexicon=files["lexicon"], language_model=str(binary))
    for _, logits in digit_strings:
        (first,), (second,) = from_text.read(logits), from_binary.read(logits)
        assert second.transcript == first.transcript
        assert second.score == pytest.approx(first.score, abs=1e-3)


def test_times_of_the_reference(digits: Wav2Vec2CTCTokenizer, digit_strings: Strings) -> None:
    """Where the model hears the reference, alignment finds its words where greedy decoding does."""
    aligner = decoder(digits, align=True)
    agreeing = [(clip, logits) for clip, logits in digit_strings if clip["text"] == clip["reference"]]
    assert len(agreeing) > 30
    for clip, logits in agreeing:
        aligned = aligner.align(logits, clip["reference"].title() + ".")
        assert aligned is not None
        words = [
            {"word": word.word, "start_frame": word.start_frame, "end_frame": word.end_frame}
            for word in aligned.words
        ]
        for word, expected in zip(words, clip["words"], strict=True):
            assert word["word"].lower().strip(".") == expected["word"]
            assert abs(word["start_frame"] - expected["start_frame"]) <= 3, clip["path"]
            assert abs(word["end_frame"] - expected["end_frame"]) <= 3, clip["path"]


def test_wrong_references_score_lower(digits: Wav2Vec2CTCTokenizer, digit_strings: Strings) -> None:
    """Each clip with the reference of the next that is another: one score parts nearly all of them."""
    aligner = decoder(digits, align=True)
    references = [clip["reference"] for clip, _ in digit_strings]
    right, wrong = [], []
    for place, (clip, logits) in enumerate(digit_strings):
        following = references[place + 1 :] + references[:place]
        other = next(text for text in following if text != clip["reference"])
        own, strange = aligner.align(logits, clip["reference"]), aligner.align(logits, other)
        assert own is not None
        right.append(own.score)
        wrong.append(strange.score if strange else float("-inf"))
    assert all(own > strange for own, strange in zip(right, wrong, strict=True))
    assert min(right) > -0.3
    assert sum(score > -0.3 for score in wrong) == 0
