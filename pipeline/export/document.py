"""What all formats have in common: a document is written clip by clip, a registration refers to the table's
files; the class says what it can hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from pipeline.export.table import Row, Table

Write = Callable[[str], object]


@dataclass(frozen=True)
class Content:
    """What of the table is asked for.

    Attributes:
        reference: the words of the aligned reference text, not the transcript's.
        embeddings: the x-vectors too.
    """

    reference: bool = False
    embeddings: bool = False


class Format(ABC):
    """What an export writes."""

    name: ClassVar[str]
    holds_embeddings: ClassVar[bool] = False

    @classmethod
    def refusal(cls, content: Content) -> str | None:
        """Why the format has no place for what is asked for; None where it has."""
        if content.embeddings and not cls.holds_embeddings:
            others = " or ".join(name for name, kind in FORMATS.items() if kind.holds_embeddings)
            return f"embeddings: {cls.name} has no place for them; use format {others}"
        return None


class Registration(Format):
    """A table of another system that refers to the Parquet files where they are."""

    holds_embeddings = True

    @classmethod
    def refusal(cls, content: Content) -> str | None:
        return f"reference: {cls.name} has all columns" if content.reference else None

    @classmethod
    @abstractmethod
    def register(cls, table: Table) -> None:
        """Registers the files that the table has now, in place of those that were registered before.

        Raises:
            JobError: the system cannot have such a table.
        """


class Document(Format):
    """A file in the making: of one clip, or of all."""

    extension: ClassVar[str]
    one_per_clip: ClassVar[bool]  # unless told otherwise
    error_rows: ClassVar[bool] = False  # clips that failed are written too
    needs_a_clip: ClassVar[bool] = False  # a document without any is none

    def __init__(self, write: Write, *, whole_table: bool) -> None:
        self._write, self._whole_table = write, whole_table

    @classmethod
    @abstractmethod
    def columns(cls, table: Table, content: Content) -> Mapping[str, str]:
        """The columns to read, {name of the value: name in the table}.

        Raises:
            JobError: the table lacks what the format needs.
        """

    @classmethod
    def missing(cls, row: Row) -> str | None:
        """Why a clip without error cannot be written; None where it can."""
        return None

    @abstractmethod
    def add(self, row: Row) -> None:
        """Writes a clip."""

    def finish(self) -> None:
        """Writes what stands at the end."""


FORMATS: dict[str, type[Format]] = {}
_Kind = TypeVar("_Kind", bound=type[Format])


def register(kind: _Kind) -> _Kind:
    """Makes a format one that jobs/export.py writes; decorates its class.

    Raises:
        ValueError: another format has its name.
    """
    if kind.name in FORMATS:
        raise ValueError(f"there is a format {kind.name} already")
    FORMATS[kind.name] = kind
    return kind


def identity(*names: str) -> dict[str, str]:
    """Columns under their own names, with what every format reads."""
    return {name: name for name in ("clip_id", "error", *names)}
