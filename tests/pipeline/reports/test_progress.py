"""How far a run is: what the line says, and what is not known is not said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.reports.progress import Progress, duration


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress(0, 0, 0.0, 3.0), "0 clips | 0 errors"),
        (Progress(0, 0, 0.0, 3.0, 30, True), "0 of 30 clips | 0 errors"),
        (
            Progress(1200, 1, 3600.0, 120.0, 4800, True),
            "1,200 of 4,800 clips | 1 error | 30.0 x real time | 6 min left",
        ),
        (
            Progress(10, 2, 5.0, 10.0, 9, False),
            "10 of about 10 clips | 2 errors | 0.5 x real time | 0 s left",
        ),
        (Progress(7, 7, 0.0, 7.0), "7 clips | 7 errors"),
    ],
)
def test_what_the_line_says(progress: Progress, line: str) -> None:
    assert progress.line() == line


def test_facts() -> None:
    assert Progress(10, 1, 40.0, 20.0, 30, True).facts() == {
        "clips": 10,
        "errors": 1,
        "audio_s": 40.0,
        "seconds": 20.0,
        "expected": 30,
        "exact": True,
        "speed": 2.0,
        "left_s": 40.0,
    }
    assert Progress(0, 0, 0.0, 0.0).share is None
    assert Progress(45, 0, 0.0, 1.0, 30).share == 1.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3560, "59 min"),
        (3590, "1 h 0 min"),
        (190_000, "2 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 1e9))
def test_durations_have_an_end(seconds: float) -> None:
    assert len(duration(seconds)) < 16
