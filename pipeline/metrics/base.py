"""What the summary says about the quality of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, Self


class Metric(Protocol):
    """Sums over rows that add up, whatever the order: each output file is summed by itself. Picklable."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns to read, as far as a file has them; of rows with an error nothing is asked."""

    def add_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes rows in which no error stands."""

    def add(self, other: Self) -> None:
        """Takes the sums of other rows."""

    def facts(self) -> dict[str, Any]:
        """For the summary's JSON: the same keys whether there was anything to score or not."""

    def lines(self) -> list[tuple[str, str]]:
        """(name, value) for a person; none where nothing was scored."""
