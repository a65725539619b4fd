"""`losses.parquet`: the loss of each clip in each epoch, to be joined with the corpus on `clip_id`.

While a run lasts, its workers write parts, whole or not at all, before each checkpoint:

    losses/step-00000101-00000200-rank-0000.parquet

A run that goes on from step 200 keeps what these hold up to step 200 and nothing after, so that no step
counts twice. At the end `merge` makes one table of them. A loss that is not finite is no row, nor is that
of two clips joined to one.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.storage import Storage, join, name_of
from pipeline.training.batches.batch import Batch
from pipeline.training.model.losses import TaskLoss

TRAIN, VALID = "train", "valid"
# `loss` is the clip's mean: per token (transcribe), frame and output (diarize) or masked frame.
LOSSES = pa.schema(
    [
        ("clip_id", pa.string()),
        ("speed", pa.float32()),
        ("epoch", pa.int32()),
        ("step", pa.int32()),
        ("task", pa.string()),
        ("split", pa.string()),
        ("loss", pa.float32()),
        ("frames", pa.int32()),
        ("tokens", pa.int32()),  # of the reference; null where it is no text
    ]
)
_PART = re.compile(r"step-(\d+)-(\d+)-rank-(\d+)\.parquet")
_READ_ROWS = 65_536


@dataclass(frozen=True)
class ClipLoss:
    """One clip's loss for one task; `tokens` of its reference, None where that is no text."""

    clip_id: str
    speed: float
    task: str
    loss: float
    frames: int
    tokens: int | None


def clip_losses(batch: Batch, losses: Mapping[str, TaskLoss]) -> list[ClipLoss]:
    """The rows of a batch: one of each clip and task with a finite loss. Two clips that were joined have
    none: their loss is that of neither."""
    found = []
    for task, of_task in losses.items():
        targets = batch.targets.get(task) if task == "transcribe" else None
        for index, loss in enumerate(of_task.clips.tolist()):
            if np.isfinite(loss) and not any(batch.joined[index : index + 1]):
                target = targets[index] if targets else None
                tokens = None if target is None else len(target)
                frames = batch.features.lengths[index]
                found.append(ClipLoss(batch.clip_ids[index], batch.speeds[index], task, loss, frames, tokens))
    return found


class _Part(NamedTuple):
    last: int
    first: int
    rank: int
    uri: str

    @classmethod
    def of(cls, uri: str) -> _Part | None:
        match = _PART.fullmatch(name_of(uri))
        return match and cls(int(match[2]), int(match[1]), int(match[3]), uri)


class LossLog:
    """One worker's losses on their way into parts.

    Args:
        folder: of the parts of all workers.
        step: that the run goes on from, 0 at its beginning.
    """

    def __init__(self, folder: str, storage: Storage, rank: int, step: int = 0) -> None:
        self._folder, self._storage, self._rank, self._step = folder, storage, rank, step
        self._rows: list[dict[str, Any]] = []

    def add(self, step: int, epoch: int, losses: Iterable[ClipLoss], split: str = TRAIN) -> None:
        """Takes losses of a step; `split` is `TRAIN` or `VALID`."""
        for loss in losses:
            self._rows.append({**vars(loss), "epoch": epoch, "step": step, "split": split})

    def flush(self, step: int) -> None:
        """Writes what was added as a part that ends with `step`. To be called by all workers before the
        checkpoint of this step is complete: what is written later would be missing after a kill."""
        if self._rows:
            table = pa.Table.from_pylist(self._rows, LOSSES)
            _write(_uri(self._folder, self._step + 1, step, self._rank), table, self._storage)
        self._rows, self._step = [], step


def drop_beyond(folder: str, step: int, storage: Storage) -> None:
    """Takes away the losses of steps after `step`. To be called by one worker, before any adds new ones."""
    for part in _parts(folder, storage):
        if part.last <= step:
            continue
        if part.first <= step:
            table = pq.read_table(io.BytesIO(storage.read_bytes(part.uri)), schema=LOSSES)
            _write(_uri(folder, part.first, step, part.rank), table.filter(pc.field("step") <= step), storage)
        storage.remove(part.uri)


def merge(folder: str, uri: str, storage: Storage) -> int:
    """Writes all parts as one table, one after another; the number of its rows is returned."""
    rows = 0
    with storage.writing(uri) as file, pq.ParquetWriter(file, LOSSES, compression="zstd") as writer:
        for part in _parts(folder, storage):
            with storage.open(part.uri) as held:
                for batch in pq.ParquetFile(held).iter_batches(_READ_ROWS):
                    writer.write_batch(batch.cast(LOSSES))
                    rows += batch.num_rows
    return rows


@dataclass(frozen=True)
class HardClip:
    """A clip that is hard to learn.

    Attributes:
        first, last: its loss in the first and the last epoch in which it came.
    """

    clip_id: str
    task: str
    first: float
    last: float
    epochs: int


@dataclass(frozen=True)
class HardClips:
    """Of each task the clips with the highest loss, and those whose loss fell the least of what it was."""

    worst: list[HardClip]
    slowest: list[HardClip]


def hard_clips(uri: str, storage: Storage, number: int = 20) -> HardClips:
    """Finds them in a merged table, `number` of each task and kind; training clips at their own speed."""
    import duckdb

    with storage.open(uri) as file, duckdb.connect() as database:
        table = pq.ParquetFile(file)
        database.register("losses", pa.RecordBatchReader.from_batches(LOSSES, table.iter_batches(_READ_ROWS)))
        database.execute(
            """
            CREATE TABLE clips AS
            SELECT clip_id, task, min_by(loss, epoch) AS first, max_by(loss, epoch) AS last,
                   count(DISTINCT epoch) AS epochs
            FROM losses WHERE split = 'train' AND speed = 1 GROUP BY clip_id, task
            """
        )

        def highest(value: str, condition: str) -> list[HardClip]:
            rows = database.execute(
                f"""
                SELECT clip_id, task, first, last, epochs FROM clips WHERE {condition}
                QUALIFY row_number() OVER (PARTITION BY task ORDER BY {value} DESC, clip_id) <= $number
                ORDER BY task, {value} DESC, clip_id
                """,
                {"number": number},
            ).fetchall()
            return [HardClip(*row) for row in rows]

        return HardClips(highest("last", "true"), highest("last / first", "epochs > 1 AND first > 0"))


def _parts(folder: str, storage: Storage) -> list[_Part]:
    """In the order of the steps; what has another name is none of them."""
    return sorted(part for uri in storage.list_files(folder) if (part := _Part.of(uri)))


def _uri(folder: str, first: int, last: int, rank: int) -> str:
    return join(folder, f"step-{first:08}-{last:08}-rank-{rank:04}.parquet")


def _write(uri: str, table: pa.Table, storage: Storage) -> None:
    data = io.BytesIO()
    pq.write_table(table, data, compression="zstd")
    storage.write_bytes(uri, data.getvalue())
