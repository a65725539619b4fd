"""Code written for the published tokenizer: its setters, its added tokens, the arguments of a call."""

from __future__ import annotations

import copy
import pickle
import tempfile
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import BatchEncoding as PeerEncoding
from transformers import DataCollatorWithPadding
from transformers import Wav2Vec2CTCTokenizer as Peer

from tests.dropin.text_peers import VOCAB, both, trie_is_right
from w2vbert import Wav2Vec2CTCTokenizer
from w2vbert.features.batch import BatchEncoding
from w2vbert.tokenizer.collapse import Wav2Vec2CTCTokenizerOutput

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
TEXTS = st.lists(st.sampled_from([*"ETAx é", "<pad>", "|"]), max_size=9).map("".join)


# Ids that are none ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, list])
def test_logits_are_no_ids(kind: Any) -> None:
    """The peer decodes them: 0.7 is the token 0."""
    ours, peer = both()
    logits = kind(np.full((2, 3, 13), 0.7).tolist())
    for decode in (ours.batch_decode, ours.decode):
        with pytest.raises(TypeError, match=r"argmax\(-1\)"):
            decode(logits)
    with pytest.raises(TypeError, match="whole numbers, not float64"):
        ours.decode([5.0, 6.0])
    ids = kind([[5, 6], [7, 0]])
    assert ours.batch_decode(ids) == peer.batch_decode(ids) == ["ET", "A"]
    with pytest.raises(TypeError, match="batch_decode reads"):
        ours.decode(ids)
    with pytest.raises(TypeError, match="batch_decode reads"):
        ours.decode([[5, 6], [7]])
    assert ours.decode([]) == peer.decode([]) == ""


# Special tokens ------------------------------------------------------------------------------------


def test_the_character_between_words_is_set() -> None:
    for tokenizer in both():
        assert tokenizer.decode([5, 4, 6]) == "E T"
        tokenizer.replace_word_delimiter_char = "_"
        assert tokenizer.decode([5, 4, 6]) == "E_T"


def special(tokenizer: Any) -> dict[str, Any]:
    told = {name: getattr(tokenizer, name) for name in NAMES}
    told |= {f"{name}_id": getattr(tokenizer, f"{name}_id") for name in NAMES}
    told |= {"extra": tokenizer.extra_special_tokens, "extra_ids": tokenizer.extra_special_tokens_ids}
    return told | {"all": tokenizer.all_special_tokens, "all_ids": tokenizer.all_special_ids}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([None, *VOCAB])), min_size=1, max_size=4),
    st.booleans(),
    st.lists(st.integers(0, 12), max_size=12),
)
def test_setters(changes: list[tuple[str, str | None]], by_id: bool, ids: list[int]) -> None:
    ours, peer = both()
    for name, token in changes:
        for tokenizer in (ours, peer):
            if by_id:
                setattr(tokenizer, f"{name}_id", None if token is None else VOCAB[token])
            else:
                setattr(tokenizer, name, token)
        assert special(ours) == special(peer)
    assert ours.decode(ids) == peer.decode(ids)
    assert ours.decode(ids, True) == peer.decode(ids, True)
    if peer.pad_token is not None:
        rows = {"input_ids": [[5], [6, 7]]}
        assert ours.pad(dict(rows))["input_ids"] == peer.pad(dict(rows))["input_ids"]


def test_setters_of_what_is_not_there() -> None:
    """The peer gives it the id of the unknown token and says nothing."""
    ours, peer = both()
    peer.pad_token = "[PAD]"
    assert peer.pad_token_id == peer.unk_token_id
    with pytest.raises(
        ValueError, match=r"pad_token: '\[PAD\]' is not in the vocabulary.*add_special_tokens"
    ):
        ours.pad_token = "[PAD]"
    with pytest.raises(ValueError, match="pad_token_id: no token has the id 99"):
        ours.pad_token_id = 99
    assert (ours.pad_token, ours.pad_token_id) == ("<pad>", 0)
    ours.word_delimiter_token = "x"
    assert ours.decode([5, 12, 6]) == "E T"
    assert ours.encode("E T") == [5, 12, 6]
    ours.extra_special_tokens = ["E"]
    assert ours.decode([5, 12, 6], True) == "T"


def test_setters_stay_in_files_and_copies() -> None:
    ours, _ = both()
    ours.pad_token = "|"
    ours.cls_token_id = 5
    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        for again in (
            Wav2Vec2CTCTokenizer.from_pretrained(folder),
            Peer.from_pretrained(folder),
            pickle.loads(pickle.dumps(ours)),
            copy.deepcopy(ours),
        ):
            assert special(again) == special(ours)
            assert (again.pad_token_id, again.cls_token) == (4, "E")


# Added tokens --------------------------------------------------------------------------------------

ADDED = st.builds(
    AddedToken,
    st.sampled_from(["xyz", "[Q]", "E", "TA", " A", "O|", "<pad>"]),
    lstrip=st.booleans(),
    rstrip=st.booleans(),
    single_word=st.booleans(),
    normalized=st.booleans(),
    special=st.booleans(),
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.one_of(ADDED, st.just("[R]")), max_size=3), st.booleans()), max_size=3),
    st.booleans(),
    st.lists(st.sampled_from(["xyz", "[Q]", "[R]", "E", "TA", " ", "A", "O|"]), max_size=8).map("".join),
)
def test_added_tokens(calls: list[tuple[list[Any], bool]], lower: bool, text: str) -> None:
    ours, peer = both(do_lower_case=lower)
    for tokens, is_special in calls:
        found = ours.add_tokens(copy.deepcopy(tokens), special_tokens=is_special)
        assert found == peer.add_tokens(copy.deepcopy(tokens), special_tokens=is_special)
    assert ours.get_vocab() == peer.get_vocab()
    assert special(ours) == special(peer)
    assert ours.get_added_vocab() == peer.get_added_vocab()
    assume(trie_is_right(peer, text))
    assert ours.tokenize(text) == peer.tokenize(text)
    assert ours.encode(text) == peer.encode(text)
    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        for again in (Peer.from_pretrained(folder), Wav2Vec2CTCTokenizer.from_pretrained(folder)):
            assert again.get_vocab() == peer.get_vocab()
            assert again.encode(text) == peer.encode(text)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["pad_token", "cls_token", "extra_special_tokens"]),
            st.sampled_from(["[NEW]", "E", "<s>"]),
        ),
        max_size=3,
    ),
    st.booleans(),
    st.booleans(),
)
def test_add_special_tokens(calls: list[dict[str, Any]], replace: bool, as_objects: bool) -> None:
    ours, peer = both()
    for call in calls:
        tokens: dict[str, Any] = {k: AddedToken(v) if as_objects else v for k, v in call.items()}
        if "extra_special_tokens" in tokens:
            tokens["extra_special_tokens"] = [tokens["extra_special_tokens"]]
        found = ours.add_special_tokens(copy.deepcopy(tokens), replace_extra_special_tokens=replace)
        assert found == peer.add_special_tokens(tokens, replace_extra_special_tokens=replace)
    assert ours.get_vocab() == peer.get_vocab()
    assert special(ours) == special(peer)


def test_tokens_in_constructors() -> None:
    """The peer takes their text and forgets what else they say."""
    options = {"pad_token": AddedToken("[P]", lstrip=True), "extra_special_tokens": [AddedToken("[N]")]}
    ours, peer = both(**options)
    assert ours.get_vocab() == peer.get_vocab()
    assert special(ours) == special(peer)
    assert ours.encode("E[P]T[N]") == peer.encode("E[P]T[N]") == [5, 13, 6, 14]
    assert peer.encode("E [P]") == [5, 4, 13]
    assert ours.encode("E [P]") == [5, 13]
    named, peer = both(extra_special_tokens={"noise_token": "[NOISE]"})
    assert named.noise_token_id == peer.noise_token_id == 13
    with pytest.raises(ValueError, match="noise: names no special token"):
        ours.add_special_tokens({"noise": "[NOISE]"})
    with pytest.raises(AttributeError, match="get_vocab: conflicts with the method"):
        both(get_vocab=True)


# Vocabularies that are hardly any ------------------------------------------------------------------


def test_one_id_is_one_token() -> None:
    """Ids with a gap: the peer gives <s> the id of b."""
    ours, peer = both({"<pad>": 0, "a": 1, "|": 2, "<unk>": 3, "b": 5}, eos_token=None)
    assert peer.get_vocab()["<s>"] == peer.get_vocab()["b"] == 5
    ids = ours.get_vocab()
    assert ids["<s>"] == 6
    assert len(set(ids.values())) == len(ids)
    assert ours.decode([6, 5]) == "<s>b"
    with pytest.raises(ValueError, match=r"the id of 'b': is 1, as that of 'a'"):
        both({"<pad>": 0, "a": 1, "b": 1})


def test_characters_without_a_token_are_told(caplog: pytest.LogCaptureFixture) -> None:
    ours, peer = both()
    assert ours("EéTß é").input_ids == peer("EéTß é").input_ids == [5, 3, 6, 3, 4, 3]
    assert len(caplog.messages) == 1
    assert "no token for 'ß', 'é': each becomes <unk>" in caplog.messages[0]
    ours(["é", "E<unk>"])
    ours("ö", verbose=False)
    assert ours.encode("ü", verbose=False) == [3]
    assert len(caplog.messages) == 1
    ours("ö")
    assert "'ö'" in caplog.messages[1]


# The arguments of a call ---------------------------------------------------------------------------

CALLS = st.fixed_dictionaries(
    {
        "padding": st.sampled_from([False, True, "max_length", "do_not_pad"]),
        "truncation": st.sampled_from([None, False, True, "only_first", "only_second", "longest_first"]),
        "max_length": st.sampled_from([None, 3, 6]),
        "stride": st.sampled_from([0, 2]),
        "padding_side": st.sampled_from([None, "left", "right"]),
        "return_token_type_ids": st.booleans(),
        "return_attention_mask": st.sampled_from([None, False]),
        "return_special_tokens_mask": st.booleans(),
        "return_length": st.booleans(),
        "split_special_tokens": st.booleans(),
        "add_special_tokens": st.booleans(),
    }
)


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@given(TEXTS, st.one_of(st.none(), TEXTS), CALLS, st.sampled_from(["one", "batch", "words", "ids", "pairs"]))
def test_call(text: str, pair: str | None, call: dict[str, Any], form: str) -> None:
    ours, peer = both(truncation_side="left" if call.get("stride") else "right")
    assume(trie_is_right(peer, text) and trie_is_right(peer, pair or ""))
    # The peer leaves a single empty text as it is, even if it is to be padded to a length.
    assume(text or pair or call["padding"] != "max_length")
    inputs: tuple[Any, ...] = (text, pair)
    if form == "batch":
        inputs = ([text, "TA"], None if pair is None else [pair, "x"])
    elif form == "words":
        assume(text.split())
        inputs, call = (text.split(), None), {**call, "is_split_into_words": True}
    elif form == "ids":
        inputs = ([[5, 6, 7, 8], [9]], None if pair is None else [pair, [10]])
    elif form == "pairs":
        inputs = ([(text, pair or ""), ("E", "x x")],)
    try:
        expected = peer(*inputs, **call)
    except ValueError:
        with pytest.raises(ValueError, match=r"truncation must|no multiple"):
            ours(*inputs, **call)
        return
    assert ours(*inputs, **call).data == expected.data
    if form == "one":
        kept = {name: call.get(name) for name in ("padding", "truncation", "max_length", "padding_side")}
        assert ours.encode(*inputs, **kept) == peer.encode(*inputs, **kept)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(5, 12), min_size=1, max_size=12),
    st.lists(st.integers(5, 12), max_size=12),
    st.sampled_from(["only_first", "only_second", "longest_first"]),
    st.sampled_from(["left", "right"]),
    st.integers(0, 4),
)
def test_overflow(first: list[int], second: list[int], truncation: str, side: str, stride: int) -> None:
    ours, peer = both(truncation_side=side)
    call = {"truncation": truncation, "max_length": 8, "stride": stride, "return_overflowing_tokens": True}
    for inputs in ((first,), (first, second or [5])):
        if len(inputs) == 2 and truncation == "longest_first":
            for tokenizer in (ours, peer):
                with pytest.raises(ValueError, match="only_"):
                    tokenizer(*inputs, **call)
        else:
            assert ours(*inputs, **call).data == peer(*inputs, **call).data


def test_targets() -> None:
    ours, peer = both()
    for call in (
        {"text": ["E T", "A"], "text_target": ["ET", "AON"], "padding": True, "return_tensors": "pt"},
        {"text_target": "E T"},
        {"text": "E", "text_target": "E T A", "max_length": 1, "max_target_length": 2},
    ):
        found, expected = ours(**call), peer(**call)
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert torch.equal(torch.as_tensor(found[name]), torch.as_tensor(value))
    with pytest.raises(ValueError, match="give text or text_target"):
        ours()
    with pytest.raises(TypeError, match="pading"):
        ours("E", pading=True)


def test_nothing_is_whole_numbers() -> None:
    ours, peer = both()
    for text in ("", ["", ""]):
        for kind in ("pt", "np"):
            found, expected = ours(text, return_tensors=kind), peer(text, return_tensors=kind)
            for name in ("input_ids", "attention_mask"):
                assert found[name].dtype == expected[name].dtype
                assert found[name].shape == expected[name].shape
    assert ours.pad({"input_ids": []}) == peer.pad({"input_ids": []}) == {"input_ids": []}


def test_pad_one_and_other_entries() -> None:
    ours, peer = both(padding_side="left")
    one = {"input_ids": [5, 6], "special_tokens_mask": [0, 1], "token_type_ids": [0, 0]}
    for options in ({"padding": "max_length", "max_length": 4}, {}):
        assert ours.pad(dict(one), **options).data == peer.pad(dict(one), **options).data
    rows = [{"input_ids": torch.tensor([5, 6]), "labels": 1}, {"input_ids": torch.tensor([7]), "labels": 0}]
    found, expected = ours.pad(rows), peer.pad(rows)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value)
    ragged = {"input_ids": [[5], [6, 7]]}
    found, expected = (t.pad(dict(ragged), False, return_tensors="np") for t in (ours, peer))
    assert found["input_ids"].dtype == expected["input_ids"].dtype == object
    assert [[*row] for row in found["input_ids"]] == [[*row] for row in expected["input_ids"]]
    collate = DataCollatorWithPadding(ours)
    assert collate([{"input_ids": [5]}, {"input_ids": [6, 7]}])["input_ids"].tolist() == [[0, 5], [6, 7]]


def test_batches_are_made_as_published() -> None:
    for kind in (BatchEncoding, PeerEncoding):
        assert kind({"a": [1, 2]}, tensor_type="pt", prepend_batch_axis=True)["a"].tolist() == [[1, 2]]
        assert kind({"a": [1, 2]}, tensor_type="np")["a"].tolist() == [1, 2]


# What comes back -----------------------------------------------------------------------------------


def test_offsets_are_a_published_output() -> None:
    ours, peer = both()
    ids = [5, 5, 4, 0, 6, 7]
    for asked in (
        {"output_char_offsets"},
        {"output_word_offsets"},
        {"output_char_offsets", "output_word_offsets"},
    ):
        found, expected = (t.decode(ids, **dict.fromkeys(asked, True)) for t in (ours, peer))
        assert isinstance(found, Wav2Vec2CTCTokenizerOutput)
        assert type(found).__name__ == type(expected).__name__
        assert [*found.keys()] == [*expected.keys()]
        assert found.to_tuple() == expected.to_tuple()
        assert found[0] == found["text"] == found.text == "E TA"
        assert ("word_offsets" in found) == ("word_offsets" in expected)


def test_further_methods() -> None:
    ours, peer = both()
    assert (ours.encoder, ours.decoder) == (peer.encoder, peer.decoder)
    assert ours.vocab == peer.vocab == VOCAB
    for name in (
        "is_fast",
        "backend",
        "init_inputs",
        "pad_token_type_id",
        "model_input_names",
        "chat_template",
    ):
        assert getattr(ours, name) == getattr(peer, name)
    assert ours.added_tokens_encoder == peer.added_tokens_encoder
    assert ours.vocab_files_names["vocab_file"] == peer.vocab_files_names["vocab_file"]
    assert ours.num_special_tokens_to_add(True) == peer.num_special_tokens_to_add(True) == 0
    assert ours.build_inputs_with_special_tokens([5], [6]) == [5, 6]
    for pair in (None, [6]):
        found = ours.create_token_type_ids_from_sequences([5, 5], pair)
        assert found == peer.create_token_type_ids_from_sequences([5, 5], pair)
        assert dict(ours.prepare_for_model([5, 6], pair)) == dict(peer.prepare_for_model([5, 6], pair))
        assert ours.get_special_tokens_mask([5, 0], pair) == peer.get_special_tokens_mask([5, 0], pair)
    for tokenizer in (ours, peer):
        assert tokenizer.get_special_tokens_mask([5, 0, 4], already_has_special_tokens=True) == [0, 1, 1]
        assert tokenizer.clean_up_tokenization("I 'm .") == "I'm."
    with pytest.raises(NotImplementedError):
        ours("E", return_offsets_mapping=True)
