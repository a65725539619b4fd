"""What all formats have in common: a document is written clip by clip."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from pipeline.export.spec import ExportSpec
from pipeline.export.table import Row, Table

Write = Callable[[str], object]


class Document(ABC):
    """A file in the making: of one clip, or of all."""

    extension: ClassVar[str]
    one_per_clip: ClassVar[bool]  # unless told otherwise
    error_rows: ClassVar[bool] = False  # clips that failed are written too

    def __init__(self, write: Write, *, whole_table: bool) -> None:
        self._write, self._whole_table = write, whole_table

    @classmethod
    @abstractmethod
    def columns(cls, table: Table, spec: ExportSpec) -> Mapping[str, str]:
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

    def finish(self) -> None:  # noqa: B027 (most formats have nothing at their end)
        """Writes what stands at the end."""


def identity(*names: str) -> dict[str, str]:
    """Columns under their own names, with what every format reads."""
    return {name: name for name in ("clip_id", "error", *names)}
