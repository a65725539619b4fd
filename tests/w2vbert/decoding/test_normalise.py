"""References as people write them, in the tokens that there are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2vbert import Wav2Vec2CTCTokenizer
from w2vbert.decoding.normalise import TextNormaliser


def normaliser(folder: Path, letters: str, **options: bool) -> tuple[TextNormaliser, dict[int, str]]:
    vocab = {token: index for index, token in enumerate(["<pad>", "<unk>", "|", *letters])}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    tokenizer = Wav2Vec2CTCTokenizer(folder / "vocab.json", bos_token=None, eos_token=None, **options)
    return TextNormaliser(tokenizer), {index: token for token, index in vocab.items()}


def spelled(folder: Path, letters: str, text: str, **options: bool) -> list[tuple[str, str]]:
    normalise, tokens = normaliser(folder, letters, **options)
    return [(word.word, "".join(tokens[index] for index in word.ids)) for word in normalise(text)]


@pytest.mark.parametrize(
    ("letters", "text", "expected"),
    [
        ("abc", "Abc, CAB!", [("Abc,", "abc"), ("CAB!", "cab")]),
        ("ABC", "Abc, CAB!", [("Abc,", "ABC"), ("CAB!", "CAB")]),
        ("aAbB", "aB Ba", [("aB", "aB"), ("Ba", "Ba")]),  # cased: as written
        ("abc", "a 1984 – b <unk> | c", [("a", "a"), ("b", "b"), ("c", "c")]),  # nothing of them is left
        ("cafe", "Café", [("Café", "cafe")]),
        ("cafeé", "Cafe\u0301", [("Cafe\u0301", "café")]),  # composed, as the vocabulary has it
        ("STRAE", "Straße", [("Straße", "STRASSE")]),
        ("fin", "ﬁn", [("ﬁn", "fin")]),
        ("don't", "don't don’t", [("don't", "don't"), ("don’t", "dont")]),
        ("abc", " \t\n ", []),
        ("abc", "", []),
    ],
)
def test_what_becomes_of_a_text(
    tmp_path: Path, letters: str, text: str, expected: list[tuple[str, str]]
) -> None:
    assert spelled(tmp_path, letters, text) == expected


def test_upper_case_vocabulary_of_a_tokenizer_that_lowers(tmp_path: Path) -> None:
    assert spelled(tmp_path, "ABC", "Abc cab", do_lower_case=True) == [("Abc", "ABC"), ("cab", "CAB")]


def test_longer_tokens_are_found(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "|": 1, "c": 2, "h": 3, "ch": 4, "a": 5}))
    tokenizer = Wav2Vec2CTCTokenizer(tmp_path / "vocab.json", bos_token=None, eos_token=None, unk_token=None)
    (word,) = TextNormaliser(tokenizer)("Cha-cha!")
    assert word.ids == (4, 5, 4, 5)


@given(text=st.text())
def test_words_are_kept_in_order(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    normalise, tokens = normaliser(tmp_path_factory.mktemp("vocabulary"), "abcdefghijklmnopqrstuvwxyz'")
    found = normalise(text)
    written = text.replace("<unk>", " ").replace("<pad>", " ").replace("|", " ").split()
    left = iter(written)
    assert all(word.word in left for word in found)  # a subsequence
    for word in found:
        plain = [character for character in word.word.lower() if "a" <= character <= "z" or character == "'"]
        letters = [tokens[index] for index in word.ids]
        rest = iter(letters)
        assert letters
        assert all(character in rest for character in plain)
    assert {word for word in written if word.isascii() and word.isalpha()} <= {word.word for word in found}
