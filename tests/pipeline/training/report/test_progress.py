"""The progress line: what it says, how it is rewritten, and how seldom it comes where lines stay."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.report.progress import Progress, Step, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def step(number: int, seconds: float = 2.0) -> Step:
    return Step(number, 3, {"transcribe": 0.84213, "embed": 1.5}, 4.1e-5, 5000.0, seconds)


def told(stream: io.StringIO, steps: range, max_steps: int, seconds: float = 2.0) -> Progress:
    progress = Progress(max_steps, 0.02, stream)
    for number in steps:
        progress.step(step(number, seconds))
    return progress


def test_what_the_line_says() -> None:
    progress = Progress(10_000, 0.02, io.StringIO())
    progress.step(step(1199))
    progress.validated(1000, {"transcribe/wer": 0.234, "masked-prediction/loss": 3.14159})
    assert progress.line(step(1200)) == (
        "step 1,200/10,000 | epoch 3 | transcribe 0.8421 | embed 1.5 | lr 4.10e-05 | "
        "2,500 frames/s, 50 x real time | 4 h 53 min left | "
        "transcribe wer 23.4%, masked-prediction loss 3.142 at step 1,000"
    )


def test_a_slow_step_does_not_move_the_forecast() -> None:
    stream = io.StringIO()
    progress = told(stream, range(1, 10), 110)
    progress.step(step(10, seconds=500.0))
    assert "| 3 min left" in progress.line(step(10))


def test_elsewhere_lines_come_now_and_then() -> None:
    stream = io.StringIO()
    told(stream, range(1, 41), 40)  # 80 seconds
    assert [line.split(" ")[1] for line in stream.getvalue().splitlines()] == [
        "1/40",
        "16/40",
        "31/40",
        "40/40",
    ]


def test_in_a_terminal_one_line_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    progress = told(stream, range(1, 4), 1000)
    progress.close()
    *_, last, end = stream.getvalue().split("\r")[0:1] + stream.getvalue().split("\r")[-1:] + [""]
    assert end == ""
    assert "\n" not in stream.getvalue()[:-1]
    assert last.startswith("step 3/1,000 | epoch 3")
    assert all(len(line.rstrip("\n")) <= 59 for line in stream.getvalue().split("\r"))


def test_a_shorter_line_covers_a_longer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    stream = Terminal()
    progress = Progress(100_000, 0.02, stream)
    for number, seconds in enumerate((200_000.0, 0.01, 0.01), 1):
        progress.step(step(number, seconds))
    _, _, long, short = stream.getvalue().split("\r")
    assert len(short.rstrip()) < len(long) == len(short)


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
