"""JSON manifests (as of NeMo): one object a line, or an array of objects, each naming an audio file."""

from __future__ import annotations

import io
import math
from array import array
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.clips import Clip, Shard
from pipeline.corpus.columns import Cell, Passthrough
from pipeline.corpus.readers.base import Extent, Reader
from pipeline.corpus.readers.compression import ENDINGS, decompressed
from pipeline.corpus.readers.manifest.lhotse import clip_of, is_lhotse
from pipeline.corpus.readers.manifest.records import RECORD_BYTES, Records, bad_record
from pipeline.errors import ClipFailedError
from pipeline.storage import Storage, StorageError, StorageFile, resolve, without_credentials

AUDIO_KEYS = ("audio_filepath", "audio_path", "audio", "file_name", "path", "wav")
_RECORDS_IN_A_SLICE = 256  # cheap to read and dear to decode: small slices spread the clips over the actors
_SLICES_FROM_THE_START = 64  # at most, of a file of which each slice reads all that comes before it
_HEAD_BYTES = 64 << 10  # tell whether a .json is a manifest
_SAMPLED_RECORDS = 64


def packed(*endings: str) -> tuple[str, ...]:
    return tuple(ending + packed for ending in endings for packed in ("", *ENDINGS))


_DOUBTFUL = packed(".json")
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

    records: ClassVar[type[Records]] = Records

    name = "manifest"
    endings = (*packed(".jsonl", ".ndjson", ".jsonlines"), *_DOUBTFUL)
    lists_files = True
    clip_bytes = 300

    @property
    def about(self) -> str:
        return "*.jsonl and *.json manifests"

    def is_doubtful(self, name: str) -> bool:
        return name.lower().endswith(_DOUBTFUL)

    def is_one(self, shard: Shard, storage: Storage) -> bool:
        with storage.open(shard.uri, block_size=_HEAD_BYTES) as file:
            try:
                head: Any = io.BytesIO(io.BufferedReader(decompressed(file)).read(_HEAD_BYTES))
                return self.names_audio(self.records(head))
            except StorageError:
                raise
            except Exception:  # the end of the head, or of what can be unpacked
                return False

    def names_audio(self, records: Records) -> bool:
        """Whether one of the first does."""
        for record, _ in islice(records, _SAMPLED_RECORDS):
            with suppress(ClipFailedError):
                read = records.read(records.trimmed(record))
                if not is_lhotse(read):
                    self.audio_path(read)
                return True
        return False

    def clips(self, file: StorageFile, shard: Shard, slice: Slice | None) -> Iterator[Clip]:
        start, first, count = slice or Slice(0, 1, None)
        records = self.records(file)
        found = records.start_at(start) if start else islice(records, first - 1, None)
        for number, (record, size) in enumerate(islice(found, count), first):
            if size > RECORD_BYTES:
                error = bad_record(f"it has {size} bytes; more than {RECORD_BYTES} are no record").error
                yield Clip(shard.clip_id(number), shard.uri, error=error)
            elif text := records.trimmed(record):
                yield self._clip(records, text, shard, number)

    def _clip(self, records: Records, text: bytes, shard: Shard, number: int) -> Clip:
        identity = shard.clip_id(number)
        record: dict[str, Any] = {}
        try:
            record = records.read(text)
            if is_lhotse(record):
                return clip_of(record, identity, shard)
            start_s, length_s = self.part(record)
            return Clip(
                identity,
                shard.uri,
                source=self.audio_path(record, shard.uri),
                start_s=start_s,
                length_s=length_s,
                values=_shown(record),
            )
        except ClipFailedError as failed:
            return Clip(identity, shard.uri, error=failed.error, values=_shown(record))

    def audio_path(self, record: dict[str, Any], base: str = "/") -> str:
        """Where the audio is that a record of the file `base` names.

        Raises:
            ClipFailedError: it names none.
        """
        for key in AUDIO_KEYS:
            path = record.get(key)
            if isinstance(path, str) and path:
                place = resolve(base, path)
                try:
                    place.encode()
                except UnicodeEncodeError as problem:
                    message = f"`{key}` is not valid Unicode: {without_credentials(path)!a}"
                    raise bad_record(message) from problem
                return place
        raise bad_record(f"none of {', '.join(AUDIO_KEYS)} names an audio file")

    def part(self, record: dict[str, Any]) -> tuple[float | None, float | None]:
        """(start, length) in seconds. A `duration` without `offset` only describes the file, read whole.

        Raises:
            ClipFailedError: they are no seconds.
        """
        if record.get("offset") is None:
            return None, None
        offset = seconds(record, "offset")
        return offset, None if record.get("duration") is None else seconds(record, "duration")

    def slices(self, shard: Shard, storage: Storage) -> list[Slice]:
        """Of a file that cannot be read to its end, the last one is open-ended: reading it says why."""
        packed = shard.name.lower().endswith(ENDINGS)
        if shard.size <= _RECORDS_IN_A_SLICE * self.clip_bytes and not packed:
            return []
        sizes, direct, start, open_ended = array("Q"), True, 0, False
        try:
            with storage.open(shard.uri) as file:
                records = self.records(file)
                direct = records.direct
                start = records.begin if direct else 0
                sizes.extend(size for _, size in records)
        except Exception:  # of storage, or whatever is made of damage
            open_ended = True
        count = _RECORDS_IN_A_SLICE
        if not direct:
            count = max(count, -(-len(sizes) // _SLICES_FROM_THE_START))
        slices = []
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


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    """The record's own columns. Where the audio is may be signed, which is for storage alone to know."""
    paths = {key: record[key] for key in AUDIO_KEYS if isinstance(record.get(key), str)}
    return record | {key: without_credentials(path) for key, path in paths.items()}


def seconds(record: dict[str, Any], key: str) -> float:
    """What a record gives as a number of seconds; raises ClipFailedError for anything else."""
    value = record[key]
    if isinstance(value, Cell):
        value = value.meant
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise bad_record(f"`{key}` must be seconds, 0 or more, and is {value!r}")
    try:
        return float(value)
    except OverflowError as problem:
        raise bad_record(f"`{key}` is too large a number of seconds") from problem
