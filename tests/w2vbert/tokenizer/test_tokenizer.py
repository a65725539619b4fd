"""The tokenizer by itself: vocabularies, files of either layout, errors, labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from w2vbert.pretrained.hub import CheckpointNotFoundError
from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer
from w2vbert.tokenizer.vocabulary import AddedToken, TokenSplitter

VOCAB = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "h": 5, "e": 6, "l": 7, "o": 8}


def make(folder: Path, vocab: dict = VOCAB, **options: Any) -> Wav2Vec2CTCTokenizer:
    path = folder / "vocab.json"
    path.write_text(json.dumps(vocab), encoding="utf-8")
    return Wav2Vec2CTCTokenizer(path, **options)


@pytest.fixture(scope="module")
def any_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Wav2Vec2CTCTokenizer:
    return make(tmp_path_factory.mktemp("tokenizer"))


def test_round_trip_of_a_text(tmp_path: Path) -> None:
    tokenizer = make(tmp_path)
    assert tokenizer("hello ole").data == {
        "input_ids": [5, 6, 7, 7, 8, 4, 8, 7, 6],
        "attention_mask": [1] * 9,
    }
    assert tokenizer.decode([5, 5, 0, 6, 7, 0, 7, 8, 4, 4, 0, 8]) == "hello o"


def test_offsets_count_frames(tmp_path: Path) -> None:
    output = make(tmp_path).decode(
        [0, 5, 5, 0, 6, 4, 0, 4, 8, 8], output_word_offsets=True, output_char_offsets=True
    )
    assert output.text == "he  o"
    assert output.word_offsets == [
        {"word": "he", "start_offset": 1, "end_offset": 5},
        {"word": "o", "start_offset": 8, "end_offset": 10},
    ]
    assert [(char["char"], char["start_offset"], char["end_offset"]) for char in output["char_offsets"]] == [
        ("h", 1, 3),
        ("e", 4, 5),
        (" ", 5, 6),
        (" ", 7, 8),
        ("o", 8, 10),
    ]
    with pytest.raises(KeyError):
        output["words"]


def test_labels_are_not_collapsed(tmp_path: Path) -> None:
    """Every published example decodes labels with `group_tokens=False`, and many programs forget it."""
    tokenizer = make(tmp_path)
    labels = [[5, 6, 7, 7, 8, -100], [8, 0, 0, -100, -100, -100]]
    assert tokenizer.decode([5, 6, 7, 7, 8]) == "helo"
    assert tokenizer.decode([5, 6, 7, 7, 8], group_tokens=False) == "hello"
    for form in (list, np.array, torch.tensor):
        assert tokenizer.decode_labels(form(labels)) == ["hello", "o"]


def test_delimiter_is_never_skipped(tmp_path: Path) -> None:
    tokenizer = make(tmp_path)
    assert "|" in tokenizer.all_special_tokens
    assert tokenizer.decode([1, 5, 4, 8, 2], skip_special_tokens=True) == "h o"
    assert tokenizer.convert_ids_to_tokens([1, 5, 4, 8, 2], skip_special_tokens=True) == ["h", "|", "o"]


@given(st.lists(st.integers(0, 12), max_size=60))
def test_any_form_of_ids(any_tokenizer: Wav2Vec2CTCTokenizer, ids: list[int]) -> None:
    tokenizer = any_tokenizer
    text = tokenizer.decode(ids)
    assert tokenizer.decode(np.array(ids, np.int32)) == text
    assert tokenizer.decode(torch.tensor(ids, dtype=torch.long)) == text
    batch = tokenizer.batch_decode(torch.tensor([ids, ids], dtype=torch.long))
    assert batch == [text, text]


def test_batch_of_nothing(tmp_path: Path) -> None:
    """The peer looks at the first of none."""
    tokenizer = make(tmp_path)
    assert tokenizer.batch_decode([]) == []
    assert tokenizer.batch_decode([], output_word_offsets=True).word_offsets == []
    assert tokenizer([]).input_ids == []
    assert tokenizer("").input_ids == []
    assert tokenizer.decode(5) == "h"


def test_without_an_unknown_token(tmp_path: Path) -> None:
    """The peer puts None among the ids, and fails to join it when decoding."""
    tokenizer = make(tmp_path, {"<pad>": 0, "|": 1, "a": 2}, bos_token=None, eos_token=None, unk_token=None)
    assert tokenizer.encode("a a") == [2, 1, 2]
    with pytest.raises(ValueError, match="'b' is not in the vocabulary, and there is no unk_token"):
        tokenizer("ab")
    with pytest.raises(ValueError, match="an id is not in the vocabulary"):
        tokenizer.decode([2, 9])


def test_unknown_token_outside_the_vocabulary(tmp_path: Path) -> None:
    tokenizer = make(tmp_path, {"<pad>": 0, "a": 1})
    assert tokenizer.encode("ab") == [1, tokenizer.unk_token_id]
    assert tokenizer.get_vocab()["<unk>"] == tokenizer.unk_token_id == 4


@pytest.mark.parametrize("delimiter", [None, "[space]", "_"])
def test_delimiters(tmp_path: Path, delimiter: str | None) -> None:
    """The peer spells a delimiter of several characters, and writes "None" for none."""
    vocab = {"<pad>": 0, "<unk>": 1, "a": 2, delimiter or " ": 3}
    tokenizer = make(tmp_path, vocab, word_delimiter_token=delimiter)
    assert tokenizer.encode("a a") == [2, 3, 2]
    assert tokenizer.decode([2, 3, 2]) == "a a"
    tokenizer.save_pretrained(tmp_path / "saved")
    again = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "saved")
    assert again.word_delimiter_token == delimiter
    assert again.decode([2, 3, 2]) == "a a"


def test_whole_tokens(tmp_path: Path) -> None:
    tokenizer = make(tmp_path, {**VOCAB, "he": 9, "hel": 10})
    # As published, white space next to a long token of the vocabulary goes with it.
    assert tokenizer.tokenize("hello  he o") == ["hel", "l", "o", "he", "o"]
    assert tokenizer.add_tokens(["lo", "e"]) == 1
    assert tokenizer.get_vocab()["lo"] == 11
    assert tokenizer.tokenize("hello  lo o") == ["hel", "lo", "|", "|", "lo", "|", "o"]
    assert len(tokenizer) == 12
    assert tokenizer.vocab_size == 11


def test_single_words_only() -> None:
    split = TokenSplitter([AddedToken("ab", single_word=True)])
    assert split("c ab c") == ["c ", "ab", " c"]
    assert [piece for piece in split("cab") if piece] == ["cab"]
    assert [piece for piece in split("abc") if piece] == ["abc"]


# Languages -----------------------------------------------------------------------------------------

NESTED = {"eng": {"<pad>": 0, "<unk>": 1, "a": 2, "th": 3}, "deu": {"<pad>": 0, "<unk>": 1, "ä": 2, "sch": 5}}


def test_languages(tmp_path: Path) -> None:
    tokenizer = make(tmp_path, NESTED, target_lang="eng")
    assert tokenizer.encode("tha") == [3, 2]
    tokenizer.set_target_lang("deu")
    assert tokenizer.target_lang == "deu"
    assert tokenizer.encode("schä") == [5, 2]
    assert tokenizer.tokenize("th") == ["t", "h"]
    tokenizer.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "vocab.json").read_text()) == NESTED
    again = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "saved")
    assert again.encode("schä") == [5, 2]
    other = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "saved", target_lang="eng")
    assert other.encode("tha") == [3, 2]
    with pytest.raises(ValueError, match="no language 'fra', only deu, eng"):
        tokenizer.set_target_lang("fra")
    assert tokenizer.encode("schä") == [5, 2]


@pytest.mark.parametrize(
    ("vocab", "language", "message"),
    [
        (NESTED, None, "give target_lang, one of deu, eng"),
        (NESTED, "fra", "no language 'fra'"),
        (VOCAB, "eng", "one vocabulary, not several"),
        ({"a": "0"}, None, "the id of 'a': must be a whole number from 0"),
        ({"a": -1}, None, "the id of 'a'"),
        ({"a": 0, "b": 1, "c": 0}, None, "the id of 'c': is 0, as that of 'a'"),
    ],
)
def test_impossible_vocabularies(tmp_path: Path, vocab: dict, language: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make(tmp_path, vocab, target_lang=language)
    assert "vocab.json" in str(error.value)


# Files ---------------------------------------------------------------------------------------------


def write(folder: Path, **files: dict) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_layout_of_transformers_4(tmp_path: Path) -> None:
    """A tokenizer_config.json that lacks the names, which are in special_tokens_map.json."""
    write(
        tmp_path,
        vocab={"[PAD]": 3, "[UNK]": 2, "|": 0, "a": 1, "</s>": 4},
        tokenizer_config={"do_lower_case": False, "model_max_length": 10, "house_rule": 1},
        special_tokens_map={
            "bos_token": None,
            "pad_token": {"content": "[PAD]", "lstrip": False, "rstrip": False, "normalized": False},
            "unk_token": "[UNK]",
            "eos_token": "</s>",
            "additional_special_tokens": ["<noise>"],
        },
        added_tokens={"<noise>": 5},
    )
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token) == (3, 2, None)
    assert tokenizer.all_special_tokens == ["</s>", "[UNK]", "[PAD]", "|", "<noise>"]
    assert tokenizer.encode("a<noise>b") == [1, 5, 2]
    assert tokenizer.decode([1, 3, 1, 0, 5]) == "aa <noise>"
    assert tokenizer("a" * 20, truncation=True).input_ids == [1] * 10
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert saved["house_rule"] == 1
    again = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "saved")
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.all_special_tokens == tokenizer.all_special_tokens
    assert again.bos_token is None


def test_layout_with_added_tokens_decoder(tmp_path: Path) -> None:
    """Since transformers 4.34; names that tokenizer_config.json lacks are looked up in the other file."""
    write(
        tmp_path,
        vocab={"a": 0, "|": 1},
        tokenizer_config={
            "added_tokens_decoder": {
                "2": {"content": "[UNK]", "lstrip": True, "rstrip": True, "normalized": False},
                "3": {"content": "[PAD]", "lstrip": True, "rstrip": True, "normalized": False},
            },
            "unk_token": "[UNK]",
            "bos_token": None,
            "eos_token": None,
        },
        special_tokens_map={"pad_token": "[PAD]", "unk_token": "[UNK]"},
    )
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)
    assert tokenizer.decode([0, 3, 0, 1, 0]) == "aa a"
    assert tokenizer.encode("a [PAD] ab") == [0, 3, 0, 2]
    assert len(tokenizer) == 4


def test_vocabulary_alone(tmp_path: Path) -> None:
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(write(tmp_path, vocab=VOCAB))
    assert tokenizer.decode([5, 0, 6]) == "he"
    assert Wav2Vec2CTCTokenizer.from_pretrained(tmp_path, do_lower_case=True).encode("A") == [3]


def test_no_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"vocab\.json"):
        Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)


def test_lower_case_and_clean_up(tmp_path: Path) -> None:
    vocab = {"<pad>": 0, "<unk>": 1, "|": 2, "A": 3, ".": 4}
    tokenizer = make(tmp_path, vocab, do_lower_case=True, clean_up_tokenization_spaces=True)
    assert tokenizer.encode("aA .") == [3, 3, 2, 4]
    assert tokenizer.decode([3, 2, 4]) == "a."
    assert tokenizer.decode([3, 2, 4], clean_up_tokenization_spaces=False) == "a ."


def test_padding_needs_a_token(tmp_path: Path) -> None:
    tokenizer = make(tmp_path, {"a": 0, "<unk>": 1}, pad_token=None)
    assert tokenizer.decode([0, 0, 1]) == "a<unk>"
    with pytest.raises(ValueError, match="no pad_token"):
        tokenizer(["a", "aa"], padding=True)
    with pytest.raises(ValueError, match="nothing to pad"):
        tokenizer.pad([])
    with pytest.raises(ValueError, match="truncation must be"):
        tokenizer("aa", truncation="last", max_length=1)
    with pytest.raises(ValueError, match="padding_side: must be"):
        make(tmp_path, padding_side="both")
