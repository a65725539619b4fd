"""The featurize stage: clips with encoded audio to log mel features, on the CPU."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import torch

from pipeline import schema
from pipeline.audio.recording import Recording
from pipeline.audio.resampling import SAMPLE_RATE, resample, resample_blocks
from pipeline.audio.stream import Samples
from pipeline.audio.vad import Detector, kept_frames, load_detector, speech_of
from pipeline.errors import ClipError, ClipFailedError, Code, JobError, Stage
from pipeline.features.rows import FeatureRow, bytes_at, table_of
from pipeline.features.spool import FeatureSpool
from pipeline.features.windows import WindowPlan
from pipeline.storage import Storage, StorageError, StorageFile, is_remote
from w2vbert.features.extractor import AudioTooShortError, SeamlessM4TFeatureExtractor

_TABLE_BYTES = 8 << 20  # of features
_TABLE_ROWS = 256
_FETCHERS = 8  # remote sources fetched at a time
_AHEAD = 2 * _FETCHERS  # clips looked ahead for remote sources
_FETCH_BYTES = 4 << 20  # of a remote source at a time
_WHOLE_BYTES = 8 << 20  # sources up to this size are fetched in one go


@dataclass
class _Opened:
    """A clip whose decoding has begun: all of it, or of a long one as much as a window holds."""

    recording: Recording
    long: bool
    is_shard: bool
    files: ExitStack


@dataclass(frozen=True)
class FeatureOptions:
    """What of a recording is taken, and how its features are kept.

    Attributes:
        channel, max_duration_s: as in `audio.Recording`; None: any length.
        half: features in float16, not float32.
        vad: keep speech only: the name of a detector, as `vad.load_detector` takes it. The features are then
            normalised over what is kept.
        speed: how many times as fast the recording is played, which moves its pitch too, as sox's `speed`.
            `duration_s` stays that of the recording.
        statistics: keep what the normalisation took away (`schema.STATISTICS_COLUMNS`).
    """

    channel: str = "mean"
    max_duration_s: float | None = None
    half: bool = False
    vad: str | None = None
    speed: float = 1.0
    statistics: bool = False


class Featurizer:
    """Tables of `schema.read_schema(passthrough)` to tables of `schema.feature_schema(passthrough, …)`.

    A clip that fails becomes a row with an error, and a clip that has one keeps it. Digital silence, and a
    clip without speech where a detector looks for it, has no features, only their number.

    A clip no longer than a window goes through memory, as `extractor.extract` takes it. A longer one is
    streamed: memory is bounded by the window, and its features lie in a temporary file (`FeatureSpool`).

    Args:
        extractor: makes the features: (frames, width) of a clip, C order; a last frame that the audio fills
            only in part is kept, and `num_valid` counts the frames before it.
        storage: opens the clips' sources.
        passthrough: the input's own columns.
        plan: how recordings are cut into windows.
        options: what of a recording is taken, and how its features are kept.

    Raises:
        JobError: there is no such detector.
    """

    def __init__(
        self,
        extractor: SeamlessM4TFeatureExtractor,
        storage: Storage,
        passthrough: pa.Schema,
        plan: WindowPlan,
        options: FeatureOptions,
    ) -> None:
        # One actor for a core: more threads would only fight for it.
        torch.set_num_threads(1)
        self._extractor = extractor
        self._storage = storage
        self._schema = schema.feature_schema(passthrough, statistics=options.statistics)
        self._channel = options.channel
        self._max_duration_s = float("inf") if options.max_duration_s is None else options.max_duration_s
        self._dtype = np.dtype(np.float16 if options.half else np.float32)
        self._plan = plan
        self._speed = options.speed
        self._vad = options.vad
        self._detector = None if options.vad is None else load_detector(options.vad)
        self._hop = extractor.stride * extractor.fbank.frame_shift  # samples
        self._fetchers = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch")

    def __call__(
        self, table: pa.Table, starting: Callable[[int], object] | None = None
    ) -> Iterator[pa.Table]:
        """Tables in the order of the input: one long recording, or at most 256 clips of about 8 MiB.

        Args:
            starting: told the number of each row before it is opened; none is then opened ahead.
        """
        rows: list[FeatureRow] = []
        start = held = 0
        for open_clip in self._ahead(table) if starting is None else self._in_turn(table, starting):
            row = self._featurize(open_clip)
            is_long = isinstance(row.features, pa.Buffer)
            if rows and is_long:
                yield table_of(rows, table.slice(start, len(rows)), self._schema)
                start, held, rows = start + len(rows), 0, []
            rows.append(row)
            held += row.features.nbytes if isinstance(row.features, np.ndarray) else 0
            if held >= _TABLE_BYTES or len(rows) >= _TABLE_ROWS or is_long:
                yield table_of(rows, table.slice(start, len(rows)), self._schema)
                start, held, rows = start + len(rows), 0, []
        if rows:
            yield table_of(rows, table.slice(start), self._schema)

    @property
    def _played_rate(self) -> int:
        """The rate, in hertz, of samples at the model's rate that are played faster."""
        return round(self._speed * SAMPLE_RATE)

    def _ahead(self, table: pa.Table) -> Iterator[Callable[[], _Opened]]:
        """How to get each clip; remote clips are on their way before they are asked for."""
        window: deque[Callable[[], _Opened]] = deque()
        for index in range(table.num_rows):
            window.append(self._opener(table, index))
            if len(window) > _AHEAD:
                yield window.popleft()
        yield from window

    def _in_turn(self, table: pa.Table, starting: Callable[[int], object]) -> Iterator[Callable[[], _Opened]]:
        for index in range(table.num_rows):
            starting(index)
            yield partial(self._open, table, index)

    def _opener(self, table: pa.Table, index: int) -> Callable[[], _Opened]:
        source = table["source"][index].as_py()
        if source is not None and is_remote(source):
            arrival: Future[_Opened] = self._fetchers.submit(self._open, table, index)
            return arrival.result
        return lambda: self._open(table, index)

    def _open(self, table: pa.Table, index: int) -> _Opened:
        clip = {name: table[name][index].as_py() for name in ("source", "start_s", "length_s", "error")}
        if (error := clip["error"]) is not None:
            raise ClipFailedError(Stage(error["stage"]), Code(error["code"]), error["message"])
        audio, source = bytes_at(table["audio"], index), clip["source"]
        is_shard = source is not None and source == table["shard"][index].as_py()
        part = {name: clip[name] for name in ("start_s", "length_s")}
        with ExitStack() as files:
            if audio is not None:
                data: Any = pa.BufferReader(audio)
            elif source is not None:
                with _read_errors(is_shard):
                    data = files.enter_context(self._storage.open(source, block_size=_FETCH_BYTES))
                    if part == {"start_s": None, "length_s": None}:
                        data = _small_in_one_go(data)
            else:
                raise ClipFailedError(
                    Stage.READ, Code.NO_AUDIO, "the record holds no audio and names no file of it"
                )
            with _read_errors(is_shard):
                recording = files.enter_context(
                    Recording(data, channel=self._channel, max_duration_s=self._max_duration_s, **part)
                )
                long = recording.longer_than(self._plan.frames * self._hop / SAMPLE_RATE)
            return _Opened(recording, long, is_shard, files.pop_all())

    def _featurize(self, open_clip: Callable[[], _Opened]) -> FeatureRow:
        row = FeatureRow()
        try:
            opened = open_clip()
            with opened.files:
                self._fill(row, opened)
        except ClipFailedError as failure:
            row.fail(failure.error)
        except AudioTooShortError as problem:
            row.fail(ClipError(Stage.FEATURIZE, Code.TOO_SHORT, str(problem)))
        except Exception as problem:  # one clip must not cost its neighbours
            row.fail(ClipError(Stage.FEATURIZE, Code.UNDECODABLE, _describe(problem)))
        return row

    def _fill(self, row: FeatureRow, opened: _Opened) -> None:
        recording = opened.recording
        if opened.long:
            self._spool(row, opened, self._blocks(opened))
            return
        row.take(recording)
        samples = resample(recording.whole(), self._played_rate)
        enough = len(samples) >= self._extractor.minimum_samples
        if enough and self._detector is not None:
            self._spool(row, opened, iter([samples]))
            return
        row.frames = self._extractor.num_frames(len(samples), keep_partial=True)
        row.num_valid = self._extractor.num_frames(len(samples))
        row.windows = []
        if enough and recording.silent:
            return
        features, statistics = self._extractor.extract_with_statistics(samples, keep_partial=True)
        if not np.isfinite(features).all():
            raise ClipFailedError(Stage.FEATURIZE, Code.NON_FINITE, "the features are not finite numbers")
        row.features = features.astype(self._dtype, copy=False)
        row.take_statistics(statistics)
        row.windows = self._plan.over([(0, row.frames)])

    def _blocks(self, opened: _Opened) -> Iterator[Samples]:
        with _read_errors(opened.is_shard):
            blocks = opened.recording.blocks()
            yield from blocks if self._speed == 1 else resample_blocks(blocks, self._played_rate)

    def _spool(self, row: FeatureRow, opened: _Opened, blocks: Iterator[Samples]) -> None:
        with FeatureSpool(self._extractor, self._dtype) as spool:
            detector = self._new_detector()
            for block in blocks:
                spool.add(block)
                if detector is not None:
                    with self._detecting():
                        detector.add(block)
            row.take(opened.recording)
            row.frames, row.num_valid, row.windows = spool.frames, spool.num_valid, []
            if opened.recording.silent:
                return
            segments = [(0, spool.frames)] if detector is None else self._speech(detector, spool, opened)
            if segments:
                features = spool.finish(segments)
                row.features = features if opened.long else np.frombuffer(features.to_pybytes(), self._dtype)
                row.windows = self._plan.over(segments)
                row.take_statistics(spool.statistics)

    def _speech(self, detector: Detector, spool: FeatureSpool, opened: _Opened) -> list[tuple[int, int]]:
        """What the detector leaves of a recording, as (start, stop) in frames."""
        with self._detecting():
            speech = speech_of(detector, opened.recording.duration_s / self._speed)
        return kept_frames(
            speech, self._hop, frames=spool.frames, num_valid=spool.num_valid, align=self._plan.align
        )

    def _new_detector(self) -> Detector | None:
        if self._detector is None:
            return None
        with self._detecting():
            return self._detector()

    @contextmanager
    def _detecting(self) -> Iterator[None]:
        """A detector of the user's own may raise, or return, whatever it likes."""
        try:
            yield
        except Exception as problem:
            raise ClipFailedError(
                Stage.FEATURIZE,
                Code.MODEL_FAILED,
                f"the voice-activity detector {self._vad} failed: {_describe(problem)}",
            ) from problem


@contextmanager
def _read_errors(is_shard: bool) -> Iterator[None]:
    """Turns what storage and decoders raise into the clip's error.

    Args:
        is_shard: the audio is a shard of its own, which storage must deliver.
    """
    try:
        yield
    except ClipFailedError:
        raise
    except StorageError as problem:
        code = Code.NOT_FOUND if problem.missing else Code.UNREADABLE
        code = Code.NOT_A_FILE if problem.refused else Code.UNDELIVERED if is_shard else code
        raise ClipFailedError(Stage.READ, code, str(problem)) from problem
    except JobError as problem:  # no filesystem for the source
        raise ClipFailedError(Stage.READ, Code.NOT_A_FILE, str(problem)) from problem
    except Exception as problem:  # decoders of damaged bytes raise what they like
        message = f"a decoder does not know what to make of the audio ({type(problem).__name__})"
        raise ClipFailedError(Stage.DECODE, Code.UNDECODABLE, message) from problem


def _small_in_one_go(file: StorageFile) -> BinaryIO:
    """A small file's bytes: one request where many would do. So is what does not say how large it is."""
    if file.size is not None and file.size > _WHOLE_BYTES:
        return cast(BinaryIO, file)
    with file:
        return io.BytesIO(file.read())


def _describe(problem: Exception) -> str:
    return f"{type(problem).__name__}: {problem}"
