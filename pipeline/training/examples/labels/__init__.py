"""From a row to a target, or to the reason why there is none: a file for each kind of task."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.training.examples.index import Ragged, Targets


class Reason(StrEnum):
    """Why a clip cannot be used, for one task or for all; beside the codes of `pipeline.errors.Code`."""

    SILENT = "silent"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    NO_LABEL = "no_label"
    EMPTY_LABEL = "empty_label"
    UNKNOWN_CHARACTERS = "unknown_characters"
    LABEL_TOO_LONG = "label_too_long"
    UNKNOWN_CLASS = "unknown_class"
    TOO_MANY_SPEAKERS = "too_many_speakers"
    AMBIGUOUS_NAME = "ambiguous_name"
    UNSCORED = "unscored"


class Reasons:
    """Why rows cannot be used: of several reasons the first that was given counts.

    Attributes:
        none: (rows,) bool: rows without a reason.
        reasons, details: (rows,) text; None where there is none.
    """

    def __init__(self, rows: int) -> None:
        self.none = np.ones(rows, np.bool_)
        self.reasons: npt.NDArray[np.object_] = np.full(rows, None, object)
        self.details: npt.NDArray[np.object_] = np.full(rows, None, object)

    def give(
        self, mask: npt.NDArray[np.bool_] | pa.Array | pa.ChunkedArray, reason: str
    ) -> npt.NDArray[np.int64]:
        """Gives the rows of a mask this reason; those that had none before are returned. Null is false."""
        if not isinstance(mask, np.ndarray):
            mask = pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(mask & self.none)
        self.none[rows] = False
        self.reasons[rows] = str(reason)
        return rows

    def give_one(self, row: int, reason: str, detail: str | None = None) -> None:
        """Gives a row that has none this reason."""
        self.none[row] = False
        self.reasons[row], self.details[row] = str(reason), detail


@dataclass(frozen=True)
class Labels:
    """What a task makes of some rows.

    Attributes:
        targets: of each row.
        why: for rows without one.
    """

    targets: Targets
    why: Reasons


class Labeller(Protocol):
    """A task's labels."""

    def __call__(self, rows: pa.Table) -> Labels:
        """The labels of rows of `Rows.table`."""


def labels_of(values: Ragged, why: Reasons) -> Labels:
    """Targets where no reason speaks against them; `values` of the other rows are dropped."""
    has = why.none
    if not has.all():
        kept = np.repeat(has, values.lengths)
        offsets = np.concatenate(([0], np.cumsum(np.where(has, values.lengths, 0))))
        values = Ragged(values.values[kept], offsets)
    return Labels(Targets(has, values), why)
