"""How a command speaks: results on standard output, all else on standard error."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from pipeline import strict_json

logger = logging.getLogger(__name__)
_LOGGERS = ("jobs", "pipeline", "w2vbert")
_EVERY_S = 60.0  # a line in a log


class Shown(Protocol):
    """How far something is."""

    @property
    def share(self) -> float | None:
        """Of all that is to be done; None where that is unknown."""

    def line(self) -> str:
        """For a person."""

    def facts(self) -> dict[str, Any]:
        """For a program."""


class Console(BaseModel):
    """How to speak."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="messages")

    quiet: bool = Field(False, description="show warnings and errors only: no news, no progress, no summary")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe messages to show; debug shows what Ray says, too"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="messages on standard error: text, or one JSON object a line"
    )
    as_json: bool = Field(
        False, alias="json", description="print the plan or the summary as JSON on standard output"
    )

    @property
    def level(self) -> int:
        """Of `logging`."""
        asked = logging.getLevelNamesMapping()[self.log_level.upper()]
        return max(asked, logging.WARNING) if self.quiet else asked

    def result(self, text: Callable[[], str], facts: Callable[[], dict[str, Any]]) -> None:
        """Prints what came of the job."""
        if self.as_json:
            print(strict_json.dumps(facts(), indent=2))
        elif not self.quiet:
            print(text())

    @contextmanager
    def speaking(self, program: str) -> Iterator[Line]:
        """What is logged inside is shown; gives the line of progress."""
        handler = logging.StreamHandler(_Stderr())
        handler.setFormatter(_Json() if self.log_format == "json" else _Text(program))
        with _logged(handler, self.level), closing(self._progress()) as progress:
            yield progress

    def _progress(self) -> Line:
        if self.level > logging.INFO:
            return Line()
        in_terminal = self.log_format == "text" and sys.stderr.isatty()
        return _InTerminal() if in_terminal else _InLog()


@contextmanager
def _logged(handler: logging.Handler, level: int) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    given = [each.level for each in loggers]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(level)
    try:
        yield
    finally:
        for each, before in zip(loggers, given, strict=True):
            each.removeHandler(handler)
            each.setLevel(before)


class _Stderr:
    """The standard error of the moment: while a line of progress stands there, what is written goes above."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _Text(logging.Formatter):
    """News as they are; warnings and errors say that they are some, and errors of which command."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage().replace("\n", "\n  ")
        if record.levelno >= logging.ERROR:
            return f"{self._program}: {text}"
        return f"warning: {text}" if record.levelno >= logging.WARNING else text


class _Json(logging.Formatter):
    """A line a message; progress has its numbers beside the text."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        facts = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps(facts | getattr(record, "facts", {}))


class Line:
    """The line of progress; this one shows none."""

    def __call__(self, shown: Shown) -> None:
        pass

    def close(self) -> None:
        pass


class _InLog(Line):
    """A line a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, clock()

    def __call__(self, shown: Shown) -> None:
        if self._clock() - self._last >= _EVERY_S:
            self._last = self._clock()
            logger.info("%s", shown.line(), extra={"facts": shown.facts()})


class _InTerminal(Line):
    """One line that is written anew."""

    def __init__(self) -> None:
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
        self._bar = Progress(
            BarColumn(20, complete_style="cyan", finished_style="cyan", pulse_style="cyan"),  # else red
            text,
            console=Terminal(stderr=True, highlight=False),
            transient=True,
            redirect_stdout=False,
            refresh_per_second=2,
        )
        self._task: Any = None

    def __call__(self, shown: Shown) -> None:
        share = shown.share
        total, done = (None, 0.0) if share is None else (1.0, share)
        if self._task is None:
            self._task = self._bar.add_task(shown.line(), total=total)
            self._bar.start()
        self._bar.update(self._task, description=shown.line(), total=total, completed=done)

    def close(self) -> None:
        self._bar.stop()
