"""Shards and clips as the readers know them, and clips as rows of the table that the read stage hands on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.corpus.beside.base import Beside
from pipeline.corpus.columns import Passthrough, conform
from pipeline.errors import ClipError
from pipeline.schema import EXTRA, read_schema
from pipeline.storage import Storage


@dataclass(frozen=True)
class Shard:
    """One file of the input.

    Attributes:
        name: its path relative to the input, and the first half of its clips' ids.
        format: the name of the reader.
        version: changes when the file does (ETag, or size and modification time).
        modified: that time in seconds since 1970 (UTC); None where storage tells none.
        beside: a file that tells of its clips.
    """

    uri: str
    name: str
    format: str
    size: int
    version: str
    modified: float | None = None
    beside: Beside | None = field(default=None, compare=False)

    def clip_id(self, key: object) -> str:
        return f"{self.name}#{key}"


@dataclass(frozen=True)
class Load:
    """How the audio of a clip is made: `make` gives a file's bytes, of those at `places` (URIs)."""

    places: Sequence[str]
    make: Callable[[Storage], bytes]


@dataclass(frozen=True)
class Clip:
    """One clip as a reader found it.

    `audio` are its encoded bytes, or `source` the URI of them (`start_s`, `length_s`: the part to take), or
    `load` makes them.
    `values` are the input's own columns, under the input's names; `extra` those that no column is to hold.
    """

    clip_id: str
    shard: str
    audio: bytes | bytearray | None = None
    source: str | None = None
    start_s: float | None = None
    length_s: float | None = None
    error: ClipError | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    load: Load | None = None


def read_table(clips: Sequence[Clip], passthrough: Passthrough) -> pa.Table:
    """Clips as a table of `read_schema`; values that fit no passthrough column go to `extra`."""
    rows = []
    for clip in clips:
        values, extra = conform(clip.values, passthrough, clip.extra)
        rows.append(
            {
                "clip_id": clip.clip_id,
                "shard": clip.shard,
                "source": clip.source,
                "start_s": clip.start_s,
                "length_s": clip.length_s,
                "error": clip.error.as_row() if clip.error else None,
                EXTRA: extra,
                **values,
            }
        )
    schema = read_schema(passthrough.schema)
    at = schema.get_field_index("audio")
    return pa.Table.from_pylist(rows, schema=schema.remove(at)).add_column(
        at, schema.field(at), _audio(clips)
    )


def _audio(clips: Sequence[Clip]) -> pa.Array:
    """A clip that is alone keeps its bytes where they are: it may be large."""
    if len(clips) != 1 or clips[0].audio is None:
        return pa.array([clip.audio for clip in clips], pa.large_binary())
    data = pa.py_buffer(clips[0].audio)
    offsets = pa.array([0, data.size], pa.int64()).buffers()[1]
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])
