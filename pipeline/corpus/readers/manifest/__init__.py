"""JSON manifests (as of NeMo): one object a line, or an array of objects, each naming an audio file."""

from __future__ import annotations

import codecs
import io
import json
import math
from array import array
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.clips import Clip, Shard
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.readers.base import Extent, Reader
from pipeline.corpus.readers.compression import ENDINGS, decompressed
from pipeline.corpus.readers.manifest.records import RECORD_BYTES, Records, lines_from
from pipeline.errors import ClipFailedError, Code, Stage
from pipeline.storage import Storage, StorageError, StorageFile, resolve, without_credentials

_AUDIO_KEYS = ("audio_filepath", "audio_path", "audio", "file_name", "path", "wav")
_RECORDS_IN_A_SLICE = 256  # cheap to read and dear to decode: small slices spread the clips over the actors
_SLICES_FROM_THE_START = 64  # at most, of a file of which each slice reads all that comes before it
_HEAD_BYTES = 64 << 10  # tell whether a .json is a manifest
_SAMPLED_RECORDS = 64


def _packed(*endings: str) -> tuple[str, ...]:
    return tuple(ending + packed for ending in endings for packed in ("", *ENDINGS))


_DOUBTFUL = _packed(".json")
_DURATION = Passthrough(pa.schema([("duration", pa.float64())]), frozenset())


class Slice(NamedTuple):
    """A slice of a manifest: `records` records (None: all) from number `first` on.

    `start` is the byte where that one begins, 0 where only reading from the start of the file leads there.
    """

    start: int
    first: int
    records: int | None


class ManifestReader(Reader):
    """Manifests of one JSON object a line, or in an array. A record's number is its clip's key."""

    name = "manifest"
    endings = (*_packed(".jsonl", ".ndjson", ".jsonlines"), *_DOUBTFUL)
    lists_files = True
    clip_bytes = 300

    @property
    def about(self) -> str:
        return "*.jsonl and *.json manifests"

    def is_doubtful(self, name: str) -> bool:
        return name.lower().endswith(_DOUBTFUL)

    def is_one(self, shard: Shard, storage: Storage) -> bool:
        """Of a manifest one of the first records names audio."""
        with storage.open(shard.uri, block_size=_HEAD_BYTES) as file:
            try:
                head: Any = io.BytesIO(io.BufferedReader(decompressed(file)).read(_HEAD_BYTES))
                for record, _ in islice(Records(head), _SAMPLED_RECORDS):
                    with suppress(ClipFailedError):
                        _audio_path(_record(_trimmed(record)))
                        return True
            except StorageError:
                raise
            except Exception:  # the end of the head, or of what can be unpacked
                pass
        return False

    def clips(self, file: StorageFile, shard: Shard, slice: Slice | None) -> Iterator[Clip]:
        start, first, count = slice or Slice(0, 1, None)
        records = lines_from(file, start) if start else islice(Records(file), first - 1, None)
        for number, (record, size) in enumerate(islice(records, count), first):
            if size > RECORD_BYTES:
                error = _bad(f"it has {size} bytes; more than {RECORD_BYTES} are no record").error
                yield Clip(shard.clip_id(number), shard.uri, error=error)
            elif text := _trimmed(record):
                yield _clip(text, number, shard)

    def slices(self, shard: Shard, storage: Storage) -> list[Slice]:
        """Of a file that cannot be read to its end, the last one is open-ended: reading it says why."""
        packed = shard.name.lower().endswith(ENDINGS)
        if shard.size <= _RECORDS_IN_A_SLICE * self.clip_bytes and not packed:
            return []
        sizes, direct, open_ended = array("Q"), True, False
        try:
            with storage.open(shard.uri) as file:
                records = Records(file)
                direct = records.direct
                sizes.extend(size for _, size in records)
        except Exception:  # of storage, or whatever is made of damage
            open_ended = True
        count = _RECORDS_IN_A_SLICE
        if not direct:
            count = max(count, -(-len(sizes) // _SLICES_FROM_THE_START))
        slices = []
        start = 0
        for first in range(0, len(sizes), count):
            some = sizes[first : first + count]
            slices.append(Slice(start, first + 1, len(some)))
            start += sum(some) if direct else 0
        if open_ended:
            slices.append(Slice(start, len(sizes) + 1, None))
        return slices

    def samples(self, shard: Shard, storage: Storage) -> list[dict[str, Any]]:
        """The values of the good lines among the first."""
        first = self.delivered(shard, storage, Slice(0, 1, _SAMPLED_RECORDS))
        return [dict(clip.values) for clip in first if clip.error is None]

    def extent(self, shard: Shard, storage: Storage) -> Extent:
        """Of all records, and the durations that they give."""
        tables = [table.select(["duration"]) for table in self.tables(shard, storage, _DURATION)]
        durations = pa.concat_tables(tables)["duration"] if tables else pa.chunked_array([], pa.float64())
        seconds = float(pc.sum(durations).as_py() or 0.0)
        return Extent(len(durations), seconds, len(durations) - durations.null_count)


def _trimmed(record: bytes) -> bytes:
    """Without what joined files and pasted arrays leave: byte order marks inside, commas after objects."""
    return record.strip().removeprefix(codecs.BOM_UTF8).strip().removesuffix(b",")


def _clip(text: bytes, number: int, shard: Shard) -> Clip:
    identity = shard.clip_id(number)
    record: dict[str, Any] = {}
    try:
        record = _record(text)
        start_s, length_s = _part(record)
        return Clip(
            identity,
            shard.uri,
            source=_audio_path(record, shard.uri),
            start_s=start_s,
            length_s=length_s,
            values=_shown(record),
        )
    except ClipFailedError as failed:
        return Clip(identity, shard.uri, error=failed.error, values=_shown(record))


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    """The record's own columns. Where the audio is may be signed, which is for storage alone to know."""
    paths = {key: record[key] for key in _AUDIO_KEYS if isinstance(record.get(key), str)}
    return record | {key: without_credentials(path) for key, path in paths.items()}


def _record(text: bytes) -> dict[str, Any]:
    try:
        record = json.loads(text.decode())
    except (ValueError, RecursionError) as problem:
        raise _bad(f"the record is not JSON in UTF-8: {problem}") from problem
    if not isinstance(record, dict):
        raise _bad(f"the record is not a JSON object but {type(record).__name__}")
    return record


def _audio_path(record: dict[str, Any], base: str = "/") -> str:
    """Where the audio is that a record of the file `base` names."""
    for key in _AUDIO_KEYS:
        path = record.get(key)
        if isinstance(path, str) and path:
            place = resolve(base, path)
            try:
                place.encode()
            except UnicodeEncodeError as problem:
                raise _bad(f"`{key}` is not valid Unicode: {without_credentials(path)!a}") from problem
            return place
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
