"""Vocabularies: made, given, and read by the tokenizers of both sides."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import JobError
from pipeline.training.examples.text import TextSettings, normalise
from pipeline.training.examples.vocabulary import Vocabulary, count_characters
from tests.pipeline.training.tables import STORAGE

TEXTS = ["ab ba", "abc", "a é"]


def test_characters_are_counted_and_numbered_in_order() -> None:
    counts = count_characters(TEXTS)
    assert counts == Counter({"a": 4, "b": 3, " ": 2, "c": 1, "é": 1})
    made = Vocabulary.made(counts, 2)
    assert made.ids == {"|": 0, "a": 1, "b": 2, "[UNK]": 3, "[PAD]": 4}
    assert made.left_out == {"c": 1, "é": 1}
    assert made == Vocabulary.made(count_characters(reversed(TEXTS)), 2)


def test_no_character_that_comes_often_enough_is_an_error() -> None:
    with pytest.raises(JobError, match=r"no character comes 5 times or more .*\(11 characters in all\)"):
        Vocabulary.made(count_characters(TEXTS), 5)


def test_the_delimiter_is_no_character() -> None:
    made = Vocabulary.made(Counter({"a": 9, "|": 9}), 1)
    assert made.ids == {"|": 0, "a": 1, "[UNK]": 2, "[PAD]": 3}
    assert made.left_out == {"|": 9}


def test_people_can_look_at_it(tmp_path: Path) -> None:
    Vocabulary.made(count_characters(TEXTS), 2).save(str(tmp_path), STORAGE)
    characters = json.loads((tmp_path / "characters.json").read_text("utf-8"))
    assert characters[0] == {
        "character": "a", "code": "U+0061", "name": "LATIN SMALL LETTER A", "count": 4, "id": 1
    }  # fmt: skip
    assert [(found["character"], found["count"], found["id"]) for found in characters[1:]] == [
        ("b", 3, 2),
        (" ", 2, 0),
        ("c", 1, None),
        ("é", 1, None),
    ]
    assert Vocabulary.read(str(tmp_path / "vocab.json"), STORAGE, {}).ids == {
        "|": 0, "a": 1, "b": 2, "[UNK]": 3, "[PAD]": 4
    }  # fmt: skip


@pytest.mark.parametrize("content", ['["a"]', '{"a": "x"}', "a"])
def test_what_is_no_vocabulary_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "vocab.json").write_text(content)
    with pytest.raises(JobError, match=r"--vocab .*vocab.json is no JSON object of tokens and ids"):
        Vocabulary.read(str(tmp_path / "vocab.json"), STORAGE, {})
    with pytest.raises(JobError, match=r"--vocab .*nothing.json does not exist"):
        Vocabulary.read(str(tmp_path / "nothing.json"), STORAGE, {})


@pytest.mark.parametrize(
    "ids", [{"a": 0, "[UNK]": 1}, {"a": 0, "[PAD]": 1}, {"a": 0, "[UNK]": 1, "[PAD]": 3}]
)
def test_a_vocabulary_that_no_head_can_have_is_refused(ids: dict[str, int]) -> None:
    with pytest.raises(JobError, match=r"must number its tokens 0, 1, 2"):
        Vocabulary(ids).tokenizer()


def test_other_spellings_of_the_blank_are_known() -> None:
    tokenizer = Vocabulary({"<pad>": 0, "<unk>": 1, "|": 2, "A": 3}).tokenizer()
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, len(tokenizer)) == (0, 1, 4)


words = st.text(alphabet=st.characters(codec="utf-8", categories=("L", "M", "N", "P")), max_size=12)


@settings(max_examples=50)
@given(st.lists(words, min_size=1, max_size=6).map(" ".join))
def test_a_text_comes_back_from_its_tokens(text: str) -> None:
    text = normalise(text.replace("|", ""), TextSettings())
    if not text:
        return
    tokenizer = Vocabulary.made(count_characters([text]), 1).tokenizer()
    assert tokenizer.decode_labels([tokenizer.encode(text)]) == [text]
    assert len(tokenizer) == len(set(text) - {" "}) + 3


def test_both_sides_read_it_alike(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, Wav2Vec2CTCTokenizer

    texts = ["the quick brown fox", "l'été à la mer", "über 9 ﬁ", "हिन्दी में"]
    made = Vocabulary.made(count_characters(texts), 1)
    ours = made.tokenizer()
    ours.save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(theirs, Wav2Vec2CTCTokenizer)
    assert theirs.get_vocab() == ours.get_vocab() == made.ids
    assert theirs.pad_token_id == ours.pad_token_id == len(made.ids) - 1
    for text in texts:
        ids = ours.encode(text)
        assert theirs(text).input_ids == ids
        assert theirs.decode(ids, group_tokens=False) == ours.decode_labels([ids])[0] == text
    again = type(ours).from_pretrained(tmp_path)
    assert again.get_vocab() == made.ids
