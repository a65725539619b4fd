"""Ctrl-C and SIGTERM: a job lets go of its table, and says in one line what it leaves. A pipe that closes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import JobError


class StoppedError(JobError):
    """A signal ended the command.

    Args:
        after: what was done until then, such as "after 12 clips"; empty where nothing was.
        goes_on: whether the same command goes on from there.
    """

    def __init__(self, number: int, after: str = "", *, goes_on: bool = True) -> None:
        self.status = 128 + number
        super().__init__(f"stopped{' ' * bool(after)}{after}" + "; the same command goes on" * goes_on)


@contextmanager
def stopped_by_signals(*, goes_on: bool = True) -> Iterator[None]:
    """SIGTERM and SIGINT end the block as errors do, so that the table's lock is released.

    Raises:
        StoppedError: with the notes of the exception that went through the block.
    """
    terminated = False

    def stop(number: int, frame: object) -> None:
        nonlocal terminated
        terminated = True
        raise SystemExit(number)

    given = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stopped:
        number = signal.SIGTERM if terminated else signal.SIGINT  # for which Ray Train raises SystemExit too
        raise StoppedError(number, " ".join(getattr(stopped, "__notes__", ())), goes_on=goes_on) from stopped
    finally:
        signal.signal(signal.SIGTERM, given)


@contextmanager
def readers_may_leave() -> Iterator[None]:
    """Where who reads standard output has had enough (`… --help | head`): no failure, and nothing to say.

    Raises:
        SystemExit: then, with status 0.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        raise SystemExit(0) from None
