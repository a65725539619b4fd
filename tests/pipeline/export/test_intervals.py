"""Milliseconds, intervals on a timeline, and cues."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.export.formats.timelines.subtitles import CUE_MS, LINE_CHARACTERS, PAUSE_MS, clock, cues, lines
from pipeline.export.intervals import (
    Interval,
    Timed,
    clean,
    lay_out,
    length_s,
    milliseconds,
    seconds,
    timed_parts,
)

WORDS = st.text("abcdefghij-é字<>&", min_size=1, max_size=20)


@st.composite
def speech(draw: st.DrawFn) -> list[Interval]:
    """Words in time order with gaps between 0 and 2 seconds."""
    found, at = [], draw(st.integers(0, 10_000))
    for word in draw(st.lists(WORDS, max_size=60)):
        start = at + draw(st.sampled_from([0, 20, 200, PAUSE_MS, PAUSE_MS + 1, 2000]))
        at = start + draw(st.integers(1, 900))
        found.append(Interval(start, at, word))
    return found


@st.composite
def parts(draw: st.DrawFn) -> list[Timed]:
    """Words in order of their start, which may overlap, be empty, or lie behind the end."""
    times = st.floats(0, 12, allow_nan=False)
    found = draw(st.lists(st.tuples(times, times, WORDS), max_size=30))
    return sorted(Timed(start, end, word) for start, end, word in found)


@given(st.integers(0, 10**12))
def test_seconds_and_clock_are_exact(value: int) -> None:
    whole, thousandths = seconds(value).split(".")
    assert int(whole) * 1000 + int(thousandths) == value
    assert len(thousandths) == 3
    for mark in ",.":
        match = re.fullmatch(rf"(\d\d+):([0-5]\d):([0-5]\d)\{mark}(\d\d\d)", clock(value, mark))
        assert match
        hours, minutes, rest, after = map(int, match.groups())
        assert ((hours * 60 + minutes) * 60 + rest) * 1000 + after == value


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "00:00:00,000"), (999, "00:00:00,999"), (3_599_999, "00:59:59,999"), (360_000_000, "100:00:00,000")],
)
def test_clock(value: int, text: str) -> None:
    assert clock(value, ",") == text


def test_single_precision_times_are_the_milliseconds_they_stand_for() -> None:
    assert [milliseconds(value) for value in (0.019999999552965164, 1.2999999523162842, 0.0)] == [20, 1300, 0]


def test_words_without_time_or_text_are_passed_over_and_the_rest_is_sorted() -> None:
    words: list[dict[str, Any]] = [
        {"word": "b", "start_s": 1.0, "end_s": 2.0, "confidence": 0.5},
        {"word": " a\n c ", "start_s": -0.1, "end_s": 0.5, "confidence": None},
        {"word": "x", "start_s": None, "end_s": 2.0, "confidence": 0.5},
        {"word": "x", "start_s": float("nan"), "end_s": 2.0, "confidence": 0.5},
        {"word": " ", "start_s": 0.0, "end_s": 2.0, "confidence": 0.5},
        {"word": None, "start_s": 0.0, "end_s": 2.0, "confidence": 0.5},
    ]
    assert timed_parts(words, "word") == [(0.0, 0.5, "a c", None), (1.0, 2.0, "b", 0.5)]
    assert timed_parts(None, "word") == []


def test_length_is_the_duration_or_the_end_of_what_is_said() -> None:
    words = [
        {"word": "a", "start_s": 0.0, "end_s": 1.5},
        {"word": "b", "start_s": 1.6, "end_s": float("nan")},
    ]
    assert length_s({"duration_s": 2.25, "words": words}) == 2.25
    assert length_s({"duration_s": None, "words": words}) == 1.5
    assert length_s({"duration_s": None, "words": words, "segments": [{"end_s": 1.75}]}) == 1.75
    assert length_s({"duration_s": None, "words": None, "segments": None}) == 0.0


@given(parts(), st.floats(0, 1e6), st.floats(0.001, 13))
def test_intervals_are_within_the_clip_in_order_and_no_word_is_lost(
    words: list[Timed], at_s: float, length: float
) -> None:
    intervals = lay_out(words, at_s, length)
    first, last = milliseconds(at_s), milliseconds(at_s + length)
    if last > first:
        assert " ".join(interval.text for interval in intervals) == " ".join(word.text for word in words)
    for interval in intervals:
        assert first <= interval.start < interval.end <= last
    for one, other in itertools.pairwise(intervals):
        assert one.end <= other.start


def test_what_overlaps_is_cut_and_what_has_no_room_is_joined() -> None:
    words = [Timed(0.0, 0.5, "a"), Timed(0.4, 0.4, "b"), Timed(0.9, 1.4, "c"), Timed(1.2, 1.3, "d")]
    assert lay_out(words, 10.0, 1.0) == [
        Interval(10000, 10400, "a"),
        Interval(10400, 10401, "b"),
        Interval(10900, 11000, "c d"),
    ]
    assert lay_out([Timed(2.0, 3.0, "late")], 0.0, 1.0) == [Interval(999, 1000, "late")]


@given(speech())
def test_cues_hold_every_word_and_keep_the_rules(words: list[Interval]) -> None:
    found = list(cues(words))
    assert " ".join(cue.text for cue in found) == " ".join(word.text for word in words)
    rest = list(words)
    for cue in found:
        count = len(cue.text.split(" "))
        held, rest = rest[:count], rest[count:]
        assert (cue.start, cue.end) == (held[0].start, held[-1].end)
        assert cue.end - cue.start <= CUE_MS
        assert all(after.start - before.end <= PAUSE_MS for before, after in itertools.pairwise(held))
        assert len(lines(cue.text)) <= 2
        assert all(len(line) <= LINE_CHARACTERS for line in lines(cue.text))
        if rest:  # and it ends for a reason
            longer = f"{cue.text} {rest[0].text}"
            assert rest[0].start - cue.end > PAUSE_MS or rest[0].end - cue.start > CUE_MS or not _fits(longer)


def _fits(text: str) -> bool:
    words = text.split(" ")
    return any(
        max(len(" ".join(words[:at])), len(" ".join(words[at:]))) <= LINE_CHARACTERS
        for at in range(len(words) + 1)
    )


def test_cues_of_a_sentence() -> None:
    words = [Interval(n * 500, n * 500 + 400, f"word{n:02}") for n in range(20)]
    words[15:] = [Interval(w.start + 900, w.end + 900, w.text) for w in words[15:]]
    assert [(cue.start, cue.end, lines(cue.text)) for cue in cues(words)] == [
        (0, 5900, ["word00 word01 word02 word03 word04 word05", "word06 word07 word08 word09 word10 word11"]),
        (6000, 7400, ["word12 word13 word14"]),
        (8400, 10800, ["word15 word16 word17 word18 word19"]),
    ]


def test_lines_are_balanced_and_long_text_is_wrapped() -> None:
    assert lines("short") == ["short"]
    assert lines("the quick brown fox jumps over the lazy dog again") == [
        "the quick brown fox jumps",
        "over the lazy dog again",
    ]
    assert lines("a" * 50) == ["a" * 42, "a" * 8]
    assert max(map(len, lines("some words " * 40))) <= 42


def test_clean_makes_one_line() -> None:
    assert clean(" a\r\n\n b\u2028c\t ") == "a b c"
