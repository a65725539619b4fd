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

if TYPE_CHECKING:
    from w2vbert.config import Wav2Vec2BertConfig


def classes(table: pa.Table, column: str) -> pa.Array:
    """(rows,) text: the class of each."""
    return pc.utf8_trim_whitespace(table[column].combine_chunks())


def speakers(table: pa.Table, column: str) -> pa.Array:
    """(rows,) text: who speaks. At another speed it is somebody else, of another pitch and other vowels
    (Yamamoto et al., "Speaker augmentation and bandwidth extension for deep speaker embedding", 2019)."""
    names = classes(table, column)
    speeds = ["" if speed == 1 else f" at {speed:g}" for speed in table["clip.speed"].to_numpy()]
    others = pc.binary_join_element_wise(names, pa.array(speeds, pa.string()), "")
    return pc.if_else(pc.equal(names, ""), names, others)


def distinct(names: pa.Array) -> list[str]:
    """Sorted, without what is missing or empty."""
    return sorted(set(names.unique().to_pylist()) - {None, ""})


def to_learn(names: pa.Array, column: str) -> list[str]:
    """The names of classes that are learned, sorted.

    Raises:
        JobError: no row has one.
    """
    if not (found := distinct(names)):
        raise JobError(f"the column {column!r} is empty in all of the {len(names):,} rows to learn from.")
    return found


@dataclass(frozen=True)
class Classify:
    """Labels for `classify`: a clip's class is a number, the place of its name in `names`."""

    column: str
    names: Sequence[str]

    def __call__(self, rows: pa.Table) -> Labels:
        """A class that has no number, since no clip to learn from has it, is no target."""
        return self.numbered(classes(rows, self.column))

    def numbered(self, given: pa.Array) -> Labels:
        number = pc.index_in(given, pa.array(self.names, pa.string()))
        why = Reasons(len(given))
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
        found = Classify(self.column, self.names).numbered(speakers(rows, self.column))
        frames = rows["clip.frames"].to_numpy()
        # An adapter shortens the last hidden states, not those of every layer.
        read = frames if self.config.use_weighted_layer_sum else output_frames(self.config, frames)
        least = xvector_frames(self.config)
        for row in found.why.give(read < least, Reason.TOO_SHORT):
            found.why.details[row] = f"an x-vector needs {least} frames, there are {read[row]}"
        return labels_of(found.targets.values, found.why)
