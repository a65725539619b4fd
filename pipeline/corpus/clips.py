"""Clips as the readers find them, and as rows of the table that the read stage hands on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.corpus.columns import conform
from pipeline.errors import ClipError
from pipeline.schema import EXTRA, read_schema


@dataclass(frozen=True)
class Clip:
    """One clip as a reader found it.

    `audio` are its encoded bytes, or `source` the URI of them (`start_s`, `length_s`: the part to take).
    `values` are the input's own columns, under the input's names; `extra` those that no column is to hold.
    """

    clip_id: str
    shard: str
    audio: bytes | None = None
    source: str | None = None
    start_s: float | None = None
    length_s: float | None = None
    error: ClipError | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def read_table(clips: Iterable[Clip], carried: pa.Schema) -> pa.Table:
    """Clips as a table of `read_schema(carried)`; values that fit no carried column go to `extra`."""
    rows = []
    for clip in clips:
        values, extra = conform(clip.values, carried, clip.extra)
        rows.append(
            {
                "clip_id": clip.clip_id,
                "shard": clip.shard,
                "audio": clip.audio,
                "source": clip.source,
                "start_s": clip.start_s,
                "length_s": clip.length_s,
                "error": clip.error.as_row() if clip.error else None,
                EXTRA: extra,
                **values,
            }
        )
    return pa.Table.from_pylist(rows, schema=read_schema(carried))
