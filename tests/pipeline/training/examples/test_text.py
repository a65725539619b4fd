"""Normalised texts."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import JobError
from pipeline.training.examples.text import TextSettings, normalise


def test_a_text_is_spelled_in_one_way() -> None:
    settings = TextSettings(lower_case=True, remove_characters=",.?!")
    assert normalise("  Cafe\u0301,\tAU\u00a0lait?! ", settings) == "café au lait"
    assert normalise("ÇA VA", TextSettings()) == "ÇA VA"


def test_what_a_reader_can_tell_apart_stays() -> None:
    assert normalise("½ ﬁ …", TextSettings()) == "½ ﬁ …"  # NFKC would make 1⁄2, fi and ... of them


def test_characters_without_brackets_are_no_expression() -> None:
    assert normalise("a-b^c]d.e", TextSettings(remove_characters="^-.")) == "abc]de"
    assert normalise("8 cats!", TextSettings(remove_characters="!-9")) == "8 cats"


def test_a_list_of_regular_expressions_is_one() -> None:
    assert (
        normalise("Rock'n'Roll 99!", TextSettings(remove_characters=r"[^a-z' ]", lower_case=True))
        == "rock'n'roll"
    )
    # As the published recipe writes it.
    blog = r"[\,\?\.\!\-\;\:\"\“\%\‘\”\�\']"
    assert normalise("“It's 5%”; so?", TextSettings(remove_characters=blog)) == "Its 5 so"


def test_a_bad_list_is_refused() -> None:
    with pytest.raises(JobError, match=r"--remove-characters '\[z-a\]' is no list .*bad character range"):
        TextSettings(remove_characters="[z-a]")


@given(st.text(), st.booleans())
def test_normalising_twice_changes_nothing(text: str, lower_case: bool) -> None:
    settings = TextSettings(lower_case=lower_case)
    once = normalise(text, settings)
    assert normalise(once, settings) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == " ".join(once.split())


@given(st.text(alphabet="abAB.,^]-\\ "), st.text(alphabet=".,^]-\\[", min_size=1))
def test_removed_characters_are_gone_and_no_others(text: str, removed: str) -> None:
    if removed.startswith("[") and removed.endswith("]") and len(removed) > 2:
        return  # an expression
    found = normalise(text, TextSettings(remove_characters=removed))
    assert found.replace(" ", "") == "".join(c for c in text if c not in removed and c != " ")
