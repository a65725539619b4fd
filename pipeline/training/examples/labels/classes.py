"""Names as numbers of classes: labels of clips, and speakers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import JobError
from pipeline.training.examples.frames import output_frames, xvector_frames
from pipeline.training.examples.index import Ragged
from pipeline.training.examples.labels import Labels, Reason, Reasons, labels_of
from pipeline.training.examples.rows import Rows

if TYPE_CHECKING:
    from w2vbert.config import Wav2Vec2BertConfig


def names_in(rows: Rows, column: str) -> list[str]:
    """The classes of some rows, sorted."""
    return sorted(
        {name.strip() for name in rows.table[column].unique().to_pylist() if name is not None} - {""}
    )


def class_names(rows: Rows, column: str) -> list[str]:
    """The classes to learn, sorted.

    Raises:
        JobError: no row has one.
    """
    if not (found := names_in(rows, column)):
        raise JobError(f"the column {column!r} is empty in all of the {len(rows):,} rows to learn from.")
    return found


@dataclass(frozen=True)
class Classify:
    """Labels for `classify`: a clip's class is a number, the place of its name in `names`."""

    column: str
    names: Sequence[str]

    def __call__(self, rows: pa.Table) -> Labels:
        """A class that has no number, since no clip to learn from has it, is no target."""
        given = pc.utf8_trim_whitespace(rows[self.column].combine_chunks())
        number = pc.index_in(given, pa.array(self.names, pa.string()))
        why = Reasons(len(rows))
        why.give(given.is_null(), Reason.NO_LABEL)
        why.give(pc.equal(given, ""), Reason.EMPTY_LABEL)
        for row in why.give(number.is_null(), Reason.UNKNOWN_CLASS):
            why.details[row] = given[row].as_py()
        values = number.fill_null(0).to_numpy().astype(np.int32)
        return labels_of(Ragged(values, np.arange(len(values) + 1)), why)


@dataclass(frozen=True)
class Embed:
    """Labels for `embed`: who speaks, as a class, where a clip is long enough for an x-vector."""

    column: str
    names: Sequence[str]
    config: Wav2Vec2BertConfig

    def __call__(self, rows: pa.Table) -> Labels:
        found = Classify(self.column, self.names)(rows)
        frames = rows["clip.frames"].to_numpy()
        # An adapter shortens the last hidden states, not those of every layer.
        read = frames if self.config.use_weighted_layer_sum else output_frames(self.config, frames)
        least = xvector_frames(self.config)
        for row in found.why.give(read < least, Reason.TOO_SHORT):
            found.why.details[row] = f"an x-vector needs {least} frames, there are {read[row]}"
        return labels_of(found.targets.values, found.why)
