"""Clips on their way through the featurize stage, and the table that they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import schema
from pipeline.audio.recording import Recording
from pipeline.errors import ClipError
from pipeline.features.windows import Window
from w2vbert.features.fbank import FbankStatistics


@dataclass
class FeatureRow:
    """A clip's part of `schema.FEATURE_COLUMNS` and `STATISTICS_COLUMNS`, but for its identity.

    Attributes:
        features: (frames, width) in the dtype that they are kept in, or a long recording's as they lie.
    """

    duration_s: float | None = None
    sample_rate: int | None = None
    channels: int | None = None
    features: npt.NDArray[Any] | pa.Buffer | None = None
    frames: int | None = None
    num_valid: int | None = None
    windows: Sequence[Window] | None = None
    log_mel_mean: npt.NDArray[np.floating] | None = None
    log_mel_std: npt.NDArray[np.floating] | None = None
    error: dict[str, str] | None = None

    def take(self, recording: Recording) -> None:
        """What is known of a recording once it is decoded."""
        self.duration_s = recording.duration_s
        self.sample_rate = recording.sample_rate
        self.channels = recording.channels

    def take_statistics(self, statistics: FbankStatistics | None) -> None:
        """What the normalisation took away."""
        if statistics is not None:
            self.log_mel_mean, self.log_mel_std = statistics.mean[:, 0], statistics.deviation[:, 0]

    def fail(self, error: ClipError) -> None:
        """What is known of the audio stays."""
        self.features = self.frames = self.num_valid = self.windows = None
        self.log_mel_mean = self.log_mel_std = None
        self.error = error.as_row()


def table_of(rows: Sequence[FeatureRow], clips: pa.Table, wanted: pa.Schema) -> pa.Table:
    """The rows beside what of `clips` they keep.

    Args:
        clips: as many, with their identity and the input's own columns.
        wanted: of the table.
    """
    own = FeatureRow.__dataclass_fields__.keys()
    columns = [
        _column([getattr(row, field.name) for row in rows], field) if field.name in own else clips[field.name]
        for field in wanted
    ]
    return pa.table(columns, schema=wanted)


def bytes_at(column: pa.ChunkedArray, row: int) -> pa.Buffer | None:
    """A value of large binary where Arrow has it, since a scalar would be a copy; None where it is null."""
    value = column.slice(row, 1).chunk(0)
    if value.null_count:
        return None
    _, offsets, data = value.buffers()
    start, stop = np.frombuffer(offsets, np.int64, 2, 8 * value.offset).tolist()
    return data.slice(start, stop - start) if data is not None else pa.py_buffer(b"")


def _column(values: Sequence[Any], field: pa.Field) -> pa.Array:
    if field.name == "features":
        return _binary(values)
    if field.name == "windows":
        return _windows(values)
    return pa.array(values, field.type)


def _binary(values: Sequence[npt.NDArray[Any] | pa.Buffer | None]) -> pa.Array:
    """Large binary, without a copy of a single buffer and with one of arrays."""
    sizes = [
        0 if value is None else value.size if isinstance(value, pa.Buffer) else value.nbytes
        for value in values
    ]
    ends = pa.py_buffer(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    if len(values) == 1 and isinstance(values[0], pa.Buffer):
        data = values[0]
    else:
        flat = [np.frombuffer(value, np.uint8) for value in values if value is not None]
        data = pa.py_buffer(np.concatenate(flat) if flat else b"")
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(values), [_validity(values), ends, data])


def _windows(values: Sequence[Sequence[Window] | None]) -> pa.Array:
    found = [window for value in values for window in value or ()]
    numbers = np.array([(window.start, window.frames, window.at) for window in found], np.int32).reshape(
        -1, 3
    )
    parts = pa.StructArray.from_arrays(
        [pa.array(np.ascontiguousarray(column)) for column in numbers.T], fields=list(schema.WINDOW)
    )
    ends = np.cumsum([0, *(len(value or ()) for value in values)]).astype(np.int32)
    buffers = [_validity(values), pa.py_buffer(ends)]
    return pa.ListArray.from_buffers(pa.list_(schema.WINDOW), len(values), buffers, children=[parts])


def _validity(values: Sequence[Any]) -> pa.Buffer | None:
    """A bit for each value that is there; None where all are."""
    there = np.array([value is not None for value in values])
    return None if there.all() else pa.py_buffer(np.packbits(there, bitorder="little"))
