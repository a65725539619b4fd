"""How a command speaks: results on standard output, the rest on standard error, in text or in JSON."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jobs.cli.console import Console, _InLog
from pipeline.reports.progress import Progress
from tests.conftest import ROOT

LOGGER = logging.getLogger("pipeline.somewhere")
PROGRESS = Progress(10, 1, 40.0, 20.0, 30, True)
LINE = "10 of 30 clips | 1 error | 2.0 x real time | 40 s left"


def speak(console: Console) -> None:
    with console.speaking("w2vbert embed"):
        LOGGER.debug("a detail")
        LOGGER.info("news\nof two lines")
        LOGGER.warning("%d times", 3)
        LOGGER.error("it broke")
    LOGGER.error("nobody hears this")


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Other loggers of this process say nothing for the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging, "lastResort", logging.NullHandler())
        yield


@pytest.mark.parametrize(
    ("console", "lines"),
    [
        (Console(), ["news", "  of two lines", "warning: 3 times", "w2vbert embed: it broke"]),
        (Console(log_level="error"), ["w2vbert embed: it broke"]),
        (Console(quiet=True), ["warning: 3 times", "w2vbert embed: it broke"]),
        (Console(quiet=True, log_level="error"), ["w2vbert embed: it broke"]),
        (
            Console(log_level="debug"),
            ["a detail", "news", "  of two lines", "warning: 3 times", "w2vbert embed: it broke"],
        ),
    ],
)
def test_messages(console: Console, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    speak(console)
    said = capsys.readouterr()
    assert (said.out, said.err.splitlines()) == ("", lines)


def test_messages_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    speak(Console(log_format="json"))
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(each["level"], each["message"]) for each in found] == [
        ("info", "news\nof two lines"),
        ("warning", "3 times"),
        ("error", "it broke"),
    ]
    assert {each["logger"] for each in found} == {"pipeline.somewhere"}
    assert all(each["time"].endswith("+00:00") for each in found)


def test_progress_in_a_log_is_a_line_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with Console(log_format="json").speaking("x"):
        line = _InLog(lambda: now)
        for second in range(150):
            now = float(second)
            line(PROGRESS)
    found = [json.loads(each) for each in capsys.readouterr().err.splitlines()]
    assert [each["message"] for each in found] == [LINE, LINE]
    assert found[0] | PROGRESS.facts() == found[0]


def test_results(capsys: pytest.CaptureFixture[str]) -> None:
    for console in (Console(), Console(quiet=True), Console(quiet=True, json=True)):
        console.result(lambda: "a summary", lambda: {"clips": 3, "wer": float("nan")})
    assert capsys.readouterr().out == 'a summary\n{\n  "clips": 3,\n  "wer": null\n}\n'


def test_progress_in_a_terminal_is_one_line_that_goes() -> None:
    script = (
        "import logging, sys\n"
        "from jobs.cli.console import Console\n"
        "from pipeline.reports.progress import Progress\n"
        "with Console().speaking('x') as line:\n"
        "    line(Progress(10, 1, 40.0, 20.0, 30, True))\n"
        "    logging.getLogger('pipeline').info('news')\n"
        "    line(Progress(20, 1, 80.0, 40.0, 30, True))\n"
    )
    shown = in_terminal([sys.executable, "-c", script])
    assert LINE in shown
    assert "20 of 30 clips | 1 error | 2.0 x real time | 20 s left" in shown
    assert "\nnews" in shown.replace("\r", "").replace("\x1b[2K", "\n")
    assert shown.rstrip().endswith("\x1b[2K")  # the line is gone


def in_terminal(command: list[str], columns: int = 100) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # closed on the other side
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    return shown.decode()
