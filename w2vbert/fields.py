"""Fields of a checkpoint's JSON files: their one error, and the checks that raise it.

The largest values that pass are far beyond anything published. What exceeds them is damage or malice, and
would take all memory, or hours, before it failed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from reprlib import Repr
from typing import Any

MAX_TOKENS = 1 << 18  # ids of a vocabulary, and of what a CTC head tells apart
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 80


class ConfigError(ValueError):
    """A value that cannot be. `field` names the culprit, `file` where it stands if it was read."""

    def __init__(self, field: str, reason: str, file: str | os.PathLike[str] | None = None) -> None:
        super().__init__(field, reason, file)
        self.field, self.reason, self.file = field, reason, file

    def __str__(self) -> str:
        where = f"{os.fspath(self.file)}: " if self.file is not None else ""
        return f"{where}{self.field}: {self.reason}"


@contextmanager
def fields_of(file: str | os.PathLike[str]) -> Iterator[None]:
    """Says of each `ConfigError` in the block that the field stands in this file."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(error.field, error.reason, error.file or file) from error.__cause__


def whole(field: str, value: object, lowest: int, highest: int) -> int:
    """The value, if it is an integer from `lowest` to `highest`; else, as in all checks, `ConfigError`."""
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise ConfigError(field, f"must be a whole number from {lowest} to {highest}, is {shown(value)}")
    return value


def real(field: str, value: object, lowest: float, highest: float) -> float:
    """The value, if it is a number from `lowest` to `highest`."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not lowest <= value <= highest:
        raise ConfigError(field, f"must be a number from {lowest:g} to {highest:g}, is {shown(value)}")
    return value


def flag(field: str, value: object) -> bool:
    """The value, if it is true or false."""
    if not isinstance(value, bool):
        raise ConfigError(field, f"must be true or false, is {shown(value)}")
    return value


def text(field: str, value: object) -> str:
    """The value, if it is text that UTF-8 can hold; JSON can spell halves of characters, which it cannot."""
    if not isinstance(value, str):
        raise ConfigError(field, f"must be text, is {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(field, f"must be valid Unicode, is {value[:80]!a}") from None
    return value


def mapping(field: str, value: object) -> Mapping[Any, Any]:
    """The value, if it is a JSON object."""
    if not isinstance(value, Mapping):
        raise ConfigError(field, f"must be an object, is {shown(value)}")
    return value


def shown(value: object) -> str:
    """A value for a message, shortened."""
    return _SHORT.repr(value)


def enumerate_names(names: list[str], limit: int = 20) -> str:
    """The first names in order, and how many more there are: for messages."""
    shown = ", ".join(sorted(names)[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
