"""The index of a run: the rows that something can be learned from, and why nothing can from the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.storage import Storage
from pipeline.training.examples.index import Index
from pipeline.training.examples.labels import Labeller, Reason, Reasons
from pipeline.training.examples.rows import Rows

# `task`: null where the clip cannot be used for any. `reason`: a code of docs/errors.md or a `Reason`.
SKIPPED = pa.schema(
    {
        "clip_id": pa.string(),
        "speed": pa.float32(),
        "task": pa.string(),
        "reason": pa.string(),
        "detail": pa.string(),
    }
)


@dataclass(frozen=True)
class Limits:
    """Which clips are used at all.

    Attributes:
        min_duration_s, max_duration_s: of the recording.
        min_frames: that the encoder takes: see `frames.minimum_frames`.
    """

    min_duration_s: float = 0.0
    max_duration_s: float = float("inf")
    min_frames: int = 1


@dataclass(frozen=True)
class Built:
    """An index, and what is not in it.

    Attributes:
        skipped: of `SKIPPED`: a row for each clip, speed and task without a target.
    """

    index: Index
    skipped: pa.Table


def build_index(rows: Rows, labellers: Mapping[str, Labeller], limits: Limits) -> Built:
    """The examples among some rows, in the order of the rows.

    Args:
        labellers: by task; where there are none, every usable clip is an example.
    """
    why = _clip_reasons(rows.table, limits)
    skipped = [_skipped(rows.table, why, None)]
    table = rows.table.filter(pa.array(why.none))
    found = {task: labeller(table) for task, labeller in labellers.items()}
    skipped += [_skipped(table, labels.why, task) for task, labels in found.items()]

    has = [labels.targets.has for labels in found.values()] or [np.ones(len(table), np.bool_)]
    kept = np.flatnonzero(np.logical_or.reduce(has))
    table = table.select(["clip.id", "clip.speed", "clip.file", "clip.row", "clip.frames"]).take(
        pa.array(kept)
    )
    speeds, file, row, frames = (
        table[name].to_numpy() for name in ("clip.speed", "clip.file", "clip.row", "clip.frames")
    )
    targets = {task: labels.targets.take(kept) for task, labels in found.items()}
    clip_ids = table["clip.id"].combine_chunks()
    index = Index(clip_ids, speeds, rows.files, file, row, frames, targets)
    return Built(index, pa.concat_tables(skipped))


def write_skipped(skipped: pa.Table, uri: str, storage: Storage) -> None:
    """Writes `Built.skipped` as a Parquet file."""
    with storage.writing(uri) as file:
        pq.write_table(skipped, file, compression="zstd")


def _clip_reasons(table: pa.Table, limits: Limits) -> Reasons:
    why = Reasons(len(table))
    code = table["clip.code"].combine_chunks()
    for error in code.unique().drop_null().to_pylist():
        why.give(pc.equal(code, error), error)
    messages = table["clip.message"].combine_chunks()
    for row in np.flatnonzero(~why.none):
        why.details[row] = messages[row].as_py()
    why.give(table["clip.silent"], Reason.SILENT)
    seconds, frames = table["clip.duration_s"].to_numpy(), pc.fill_null(table["clip.frames"], 0).to_numpy()
    short = (seconds < limits.min_duration_s) | (frames < limits.min_frames)
    for row in why.give(short, Reason.TOO_SHORT):
        why.details[row] = f"{seconds[row]:.2f} s"
    for row in why.give(seconds > limits.max_duration_s, Reason.TOO_LONG):
        why.details[row] = f"{seconds[row]:.2f} s"
    return why


def _skipped(table: pa.Table, why: Reasons, task: str | None) -> pa.Table:
    """The rows of a table that have a reason."""
    at = np.flatnonzero(~why.none)
    columns = [
        *(table[name].take(pa.array(at)) for name in ("clip.id", "clip.speed")),
        pa.repeat(pa.scalar(task, pa.string()), len(at)),
        pa.array(why.reasons[at], pa.string()),
        pa.array(why.details[at], pa.string()),
    ]
    return pa.table(columns, schema=SKIPPED)
