"""The featurize stage: clips with encoded audio to log mel features, on the CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pipeline import audio, schema
from pipeline.audio import Waveform
from pipeline.errors import ClipError, ClipFailedError, Code, JobError, Stage
from pipeline.storage import Storage
from w2vbert.features import AudioTooShortError, SeamlessM4TFeatureExtractor

_TABLE_BYTES = 8 << 20  # of features
_TABLE_ROWS = 256
_FETCHERS = 8  # remote sources fetched at a time
_AHEAD = 2 * _FETCHERS  # clips looked ahead for remote sources


@dataclass
class _Row:
    """A clip's part of `schema.FEATURE_COLUMNS`, but for its identity."""

    duration_s: float | None = None
    sample_rate: int | None = None
    channels: int | None = None
    features: bytes | None = None
    frames: int | None = None
    attended: int | None = None
    silent: bool | None = None
    error: dict[str, str] | None = None


class Featurizer:
    """Tables of `schema.read_schema(carried)` to tables of `schema.feature_schema(carried)`.

    A clip that fails becomes a row with an error, and a clip that has one keeps it. Digital silence has no
    features, only their number.

    Args:
        extractor: makes the features: (frames, width) of a clip, C order; a last frame that the audio fills
            only in part is kept, and `attended` counts the frames before it.
        storage: opens the clips' sources.
        carried: the input's own columns.
        channel, max_duration_s: as in `audio.decode`.
        half: features in float16, not float32.
    """

    def __init__(
        self,
        extractor: SeamlessM4TFeatureExtractor,
        storage: Storage,
        carried: pa.Schema,
        channel: str,
        max_duration_s: float,
        half: bool,
    ) -> None:
        # One actor for a core: more threads would only fight for it.
        torch.set_num_threads(1)
        self._extractor = extractor
        self._storage = storage
        self._schema = schema.feature_schema(carried)
        self._kept = ["clip_id", "shard", *carried.names, schema.EXTRA]
        self._channel = channel
        self._max_duration_s = max_duration_s
        self._dtype = np.dtype(np.float16 if half else np.float32)
        self._fetchers = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch")

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Tables of at most 256 clips and about 8 MiB of features, in the order of the input."""
        rows: list[_Row] = []
        start = held = 0
        for load in self._ahead(table):
            row = self._featurize(load)
            rows.append(row)
            held += len(row.features or b"")
            if held >= _TABLE_BYTES or len(rows) >= _TABLE_ROWS:
                yield self._table(table.slice(start, len(rows)), rows)
                start, held, rows = start + len(rows), 0, []
        if rows:
            yield self._table(table.slice(start), rows)

    def _ahead(self, table: pa.Table) -> Iterator[Callable[[], Waveform]]:
        """How to get each clip's waveform; remote clips are on their way before they are asked for."""
        window: deque[Callable[[], Waveform]] = deque()
        for index in range(table.num_rows):
            window.append(self._loader(table, index))
            if len(window) > _AHEAD:
                yield window.popleft()
        yield from window

    def _loader(self, table: pa.Table, index: int) -> Callable[[], Waveform]:
        source = table["source"][index].as_py()
        if source is not None and "://" in source:
            arrival: Future[Waveform] = self._fetchers.submit(self._load, table, index)
            return arrival.result
        return lambda: self._load(table, index)

    def _load(self, table: pa.Table, index: int) -> Waveform:
        def value(name: str) -> Any:
            return table[name][index].as_py()

        if (error := value("error")) is not None:
            known = ClipError(Stage(error["stage"]), Code(error["code"]), error["message"])
            raise ClipFailedError(known.stage, known.code, known.message)
        part = {"start_s": value("start_s"), "length_s": value("length_s")}
        if (data := value("audio")) is not None:
            return self._decode(data, part)
        if (source := value("source")) is None:
            raise ClipFailedError(
                Stage.READ, Code.NO_AUDIO, "the record holds no audio and names no file of it"
            )
        try:
            if part["start_s"] is None and part["length_s"] is None:
                data = self._storage.read_bytes(source)
            else:
                # Parts of long recordings: fetch what is needed, not the whole file for each.
                with self._storage.open(source) as file:
                    return self._decode(file, part)
        except ClipFailedError:
            raise
        except FileNotFoundError as problem:
            raise self._read_failure(Code.NOT_FOUND, source, problem) from problem
        except Exception as problem:  # storage libraries raise errors of their own, not only OSError
            raise self._read_failure(Code.UNREADABLE, source, problem) from problem
        return self._decode(data, part)

    def _read_failure(self, code: Code, source: str, problem: Exception) -> ClipFailedError:
        text = str(problem) if isinstance(problem, JobError) else self._storage.explain(source, problem)
        return ClipFailedError(Stage.READ, code, text)

    def _decode(self, data: Any, part: dict[str, float | None]) -> Waveform:
        try:
            return audio.decode(data, channel=self._channel, max_duration_s=self._max_duration_s, **part)
        except (ClipFailedError, OSError):
            raise
        except Exception as problem:
            raise ClipFailedError(Stage.DECODE, Code.UNDECODABLE, _describe(problem)) from problem

    def _featurize(self, load: Callable[[], Waveform]) -> _Row:
        row = _Row()
        try:
            waveform = load()
            row.duration_s = waveform.duration_s
            row.sample_rate = waveform.sample_rate
            row.channels = waveform.channels
            self._fill(row, waveform)
        except ClipFailedError as failure:
            row.error = failure.error.as_row()
        except AudioTooShortError as problem:
            row.error = ClipError(Stage.FEATURIZE, Code.TOO_SHORT, str(problem)).as_row()
        except Exception as problem:  # one clip must not cost its neighbours
            row.error = ClipError(Stage.FEATURIZE, Code.UNDECODABLE, _describe(problem)).as_row()
        return row

    def _fill(self, row: _Row, waveform: Waveform) -> None:
        extractor, samples = self._extractor, waveform.samples
        silent = waveform.silent and len(samples) >= extractor.minimum_samples
        if silent:
            frames = -(-extractor.fbank.num_frames(len(samples)) // extractor.stride)
        else:
            features = extractor.extract(samples, keep_partial=True)
            frames = len(features)
            if not np.isfinite(features).all():
                raise ClipFailedError(Stage.FEATURIZE, Code.NON_FINITE, "the features are not finite numbers")
            row.features = features.astype(self._dtype).tobytes()
        row.frames = frames
        row.attended = extractor.num_frames(len(samples))
        row.silent = silent

    def _table(self, clips: pa.Table, rows: list[_Row]) -> pa.Table:
        columns = {name: clips[name] for name in self._kept}
        for name in _Row.__dataclass_fields__:
            field = self._schema.field(name)
            columns[name] = pa.array([getattr(row, name) for row in rows], field.type)
        return pa.table([columns[name] for name in self._schema.names], schema=self._schema)


def _describe(problem: Exception) -> str:
    return f"{type(problem).__name__}: {problem}"
