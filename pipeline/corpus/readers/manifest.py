"""JSON-lines manifests (as of NeMo): one JSON object a line, each naming an audio file."""

from __future__ import annotations

import codecs
import io
import json
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from pipeline.corpus.clips import Clip
from pipeline.corpus.listing import Shard
from pipeline.corpus.readers.base import ShardFile, clip_id, failure, open_shard, resolve, shard_row, tables
from pipeline.errors import ClipFailedError, Code, Stage
from pipeline.storage import Storage

_AUDIO_KEYS = ("audio_filepath", "audio_path", "audio", "file_name", "path", "wav")
_LINE_BYTES = 8 << 20  # what is no manifest may have no line breaks
_BUFFER_BYTES = 1 << 20


def read_manifest(
    shard: Shard,
    storage: Storage,
    carried: pa.Schema,
    *,
    start: int = 0,
    first_line: int = 1,
    lines: int | None = None,
) -> Iterator[pa.Table]:
    """The clips of `lines` lines (all when None) from byte `start`, where line `first_line` begins."""
    problems: list[Exception] = []
    yield from tables(_clips(shard, storage, start, first_line, lines, problems), carried)
    for problem in problems:
        yield shard_row(shard, failure(shard, storage, problem), carried)


def manifest_samples(shard: Shard, storage: Storage, limit: int = 64) -> list[dict[str, Any]]:
    """The values of the good lines among the first `limit`; none from a manifest that cannot be read."""
    return [dict(clip.values) for clip in _clips(shard, storage, 0, 1, limit, []) if clip.error is None]


def manifest_slices(
    shard: Shard, storage: Storage, lines_per_slice: int
) -> list[tuple[int, int, int | None]]:
    """(start byte, first line, lines) of the slices for `read_manifest`.

    Where storage fails, the last slice is open-ended: reading it says what happened.
    """
    slices: list[tuple[int, int, int | None]] = []
    start, line = 0, 1
    try:
        with open_shard(shard, storage) as handle:
            sizes = (size for _, size in _lines(handle))
            while some := list(islice(sizes, lines_per_slice)):
                slices.append((start, line, len(some)))
                start, line = start + sum(some), line + len(some)
    except Exception:
        slices.append((start, line, None))
    return slices


def _clips(
    shard: Shard, storage: Storage, start: int, first_line: int, lines: int | None, problems: list[Exception]
) -> Iterator[Clip]:
    """The clips up to the first storage failure, which is left in `problems`."""
    try:
        with open_shard(shard, storage) as handle:
            handle.seek(start)
            for number, (line, size) in enumerate(islice(_lines(handle), lines), first_line):
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if size > _LINE_BYTES:
                    error = _bad(f"the line has {size} bytes; more than {_LINE_BYTES} are no record").error
                    yield Clip(clip_id(shard, number), shard.uri, error=error)
                elif text.strip():
                    yield _clip(text, number, shard)
    except Exception as problem:
        problems.append(problem)


def _lines(handle: ShardFile) -> Iterator[tuple[bytes, int]]:
    """Each line and its size in bytes; of a line beyond `_LINE_BYTES` only the beginning is kept."""
    buffered = io.BufferedReader(handle, _BUFFER_BYTES)
    while line := buffered.readline(_LINE_BYTES + 1):
        size, rest = len(line), line
        while len(rest) > 0 and not rest.endswith(b"\n"):
            rest = buffered.readline(_BUFFER_BYTES)
            size += len(rest)
        yield line, size


def _clip(line: bytes, number: int, shard: Shard) -> Clip:
    identity = clip_id(shard, number)
    record: dict[str, Any] = {}
    try:
        record = _record(line)
        start_s, length_s = _part(record)
        return Clip(
            identity,
            shard.uri,
            source=resolve(shard, _audio_path(record)),
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
