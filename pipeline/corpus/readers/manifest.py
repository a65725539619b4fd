"""JSON-lines manifests (as of NeMo): one JSON object a line, each naming an audio file."""

from __future__ import annotations

import codecs
import io
import json
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.clips import Clip, Shard
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.readers.base import Extent, Reader
from pipeline.errors import ClipFailedError, Code, Stage
from pipeline.storage import Storage, StorageError, StorageFile, resolve

_AUDIO_KEYS = ("audio_filepath", "audio_path", "audio", "file_name", "path", "wav")
_LINE_BYTES = 8 << 20  # what is no manifest may have no line breaks
_BUFFER_BYTES = 1 << 20
_LINES_IN_A_SLICE = 256  # cheap to read and dear to decode: small slices spread the clips over the actors
_SAMPLED_LINES = 64
_DURATION = Passthrough(pa.schema([("duration", pa.float64())]), frozenset())


class Lines(NamedTuple):
    """A slice of a manifest: `lines` lines (None: all) from byte `start` on, where line `first` begins."""

    start: int
    first: int
    lines: int | None


class ManifestReader(Reader):
    """Manifests of one JSON object a line. A line's number in the file is its clip's key."""

    name = "manifest"
    endings = (".jsonl", ".ndjson", ".jsonlines")
    lists_files = True
    clip_bytes = 300

    @property
    def about(self) -> str:
        return "*.jsonl manifests"

    def clips(self, file: StorageFile, shard: Shard, slice: Lines | None) -> Iterator[Clip]:
        start, first, lines = slice or Lines(0, 1, None)
        file.seek(start)
        for number, (line, size) in enumerate(islice(_lines(file), lines), first):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if size > _LINE_BYTES:
                error = _bad(f"the line has {size} bytes; more than {_LINE_BYTES} are no record").error
                yield Clip(shard.clip_id(number), shard.uri, error=error)
            elif text.strip():
                yield _clip(text, number, shard)

    def slices(self, shard: Shard, storage: Storage) -> list[Lines]:
        """Where storage fails, the last slice is open-ended: reading it says what happened."""
        slices: list[Lines] = []
        start, line = 0, 1
        try:
            with storage.open(shard.uri) as file:
                sizes = (size for _, size in _lines(file))
                while some := list(islice(sizes, _LINES_IN_A_SLICE)):
                    slices.append(Lines(start, line, len(some)))
                    start, line = start + sum(some), line + len(some)
        except StorageError:
            slices.append(Lines(start, line, None))
        return slices

    def samples(self, shard: Shard, storage: Storage) -> list[dict[str, Any]]:
        """The values of the good lines among the first."""
        first = self.delivered(shard, storage, Lines(0, 1, _SAMPLED_LINES))
        return [dict(clip.values) for clip in first if clip.error is None]

    def extent(self, shard: Shard, storage: Storage) -> Extent:
        """Of all lines, and the durations that they give."""
        tables = [table.select(["duration"]) for table in self.tables(shard, storage, _DURATION)]
        durations = pa.concat_tables(tables)["duration"] if tables else pa.chunked_array([], pa.float64())
        seconds = float(pc.sum(durations).as_py() or 0.0)
        return Extent(len(durations), seconds, len(durations) - durations.null_count)


def _lines(file: StorageFile) -> Iterator[tuple[bytes, int]]:
    """Each line and its size in bytes; of a line beyond `_LINE_BYTES` only the beginning is kept."""
    buffered = io.BufferedReader(file, _BUFFER_BYTES)
    while line := buffered.readline(_LINE_BYTES + 1):
        size, rest = len(line), line
        while len(rest) > 0 and not rest.endswith(b"\n"):
            rest = buffered.readline(_BUFFER_BYTES)
            size += len(rest)
        yield line, size


def _clip(line: bytes, number: int, shard: Shard) -> Clip:
    identity = shard.clip_id(number)
    record: dict[str, Any] = {}
    try:
        record = _record(line)
        start_s, length_s = _part(record)
        return Clip(
            identity,
            shard.uri,
            source=resolve(shard.uri, _audio_path(record)),
            start_s=start_s,
            length_s=length_s,
            values=record,
        )
    except ClipFailedError as failed:
        return Clip(identity, shard.uri, error=failed.error, values=record)


def _record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError) as problem:
        raise _bad(f"the line is not JSON in UTF-8: {problem}") from problem
    if not isinstance(record, dict):
        raise _bad(f"the line is not a JSON object but {type(record).__name__}")
    return record


def _audio_path(record: dict[str, Any]) -> str:
    for key in _AUDIO_KEYS:
        path = record.get(key)
        if isinstance(path, str) and path:
            try:
                path.encode()
            except UnicodeEncodeError as problem:
                raise _bad(f"`{key}` is not valid Unicode: {path!a}") from problem
            return path
    raise _bad(f"none of {', '.join(_AUDIO_KEYS)} names an audio file")


def _part(record: dict[str, Any]) -> tuple[float | None, float | None]:
    """(start, length) in seconds. A `duration` without `offset` only describes the file, read whole."""
    if record.get("offset") is None:
        return None, None
    offset = _seconds(record, "offset")
    return offset, None if record.get("duration") is None else _seconds(record, "duration")


def _seconds(record: dict[str, Any], key: str) -> float:
    value = record[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise _bad(f"`{key}` must be seconds, 0 or more, and is {value!r}")
    try:
        return float(value)
    except OverflowError as problem:
        raise _bad(f"`{key}` is too large a number of seconds") from problem


def _bad(message: str) -> ClipFailedError:
    return ClipFailedError(Stage.READ, Code.BAD_RECORD, message)
