"""Shards as parts that tasks read side by side, and parts as tables of the clips that have no row yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.condition import Where
from pipeline.corpus.readers import READERS
from pipeline.corpus.readers.base import Reader, broken, shard_row
from pipeline.storage import Storage

_PARTS_IN_A_BUNDLE = 64
_BUNDLE_BYTES = 16 << 20  # of shards that hold their audio
# Rows that only name their audio are cheap to read and dear to decode: few of them spread over many actors.
_BUNDLE_ROWS = 256
_THREADS = 16  # storage far away answers slowly, but many at once


@dataclass(frozen=True)
class Part:
    """A shard, or a slice of a large one, with its reader: all that a worker must know."""

    shard: Shard
    reader: Reader
    slice: Any = None
    number: int = 0
    of_parts: int = 1

    @property
    def size(self) -> int:
        """Bytes, about."""
        return self.shard.size // self.of_parts


@dataclass(frozen=True)
class Selection:
    """Which clips are wanted.

    Attributes:
        where: a condition that they meet.
        done: by shard (URI), the ids of those that have a row, which are left out.
    """

    where: str | None = None
    done: Mapping[str, pa.Array] = field(default_factory=dict)

    def of(self, parts: Sequence[Part]) -> Selection:
        """As much of it as these parts need."""
        uris = {part.shard.uri for part in parts}
        return Selection(self.where, {uri: self.done[uri] for uri in uris if uri in self.done})


Finished = Callable[[Part, int, int], None]
Step = Callable[[], str | None]
"""Called before each table of a shard is read; returns why not to read on, or None."""


def split(shard: Shard, storage: Storage) -> list[Part]:
    """The parts of a shard."""
    reader = READERS[shard.format]
    slices = reader.slices(shard, storage)
    parts = [Part(shard, reader, slice, number, len(slices)) for number, slice in enumerate(slices)]
    return parts or [Part(shard, reader)]


def split_all(shards: Sequence[Shard], storage: Storage) -> list[Part]:
    """The parts of all shards, in their order."""
    several = [shard for shard in shards if not READERS[shard.format].one_clip]
    with ThreadPoolExecutor(_THREADS) as threads:
        parts = threads.map(lambda shard: split(shard, storage), several)
        found = {shard.uri: own for shard, own in zip(several, parts, strict=True)}
    return [part for shard in shards for part in found.get(shard.uri) or split(shard, storage)]


def bundles(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """What one task reads: a large part, or small ones by the dozen."""
    held: list[Part] = []
    filled = 0.0
    for part in parts:
        share = _share(part)
        if share >= 1:
            yield [part]
            continue
        if filled + share > 1:
            yield held
            held, filled = [], 0.0
        held.append(part)
        filled += share
    if held:
        yield held


def _share(part: Part) -> float:
    """How much of a bundle a part fills."""
    reader = part.reader
    if reader.one_clip:
        return 1 / _PARTS_IN_A_BUNDLE
    full = _BUNDLE_ROWS * reader.clip_bytes if reader.lists_files else _BUNDLE_BYTES
    return max(1 / _PARTS_IN_A_BUNDLE, part.size / full)


def read_parts(
    parts: Sequence[Part],
    storage: Storage,
    passthrough: Passthrough,
    selection: Selection | None = None,
    finished: Finished | None = None,
    step: Step = lambda: None,
) -> Iterator[pa.Table]:
    """The clips of the parts, as tables of `read_schema`. What cannot be read becomes an error row.

    Args:
        selection: of the clips; None: all.
        finished: called with each part that was read to its end, how many clips it holds that meet the
            condition, and how many of those have a row.
        step: its answer becomes an error row of the shard.
    """
    selection = selection or Selection()
    condition = Where(selection.where, passthrough.schema) if selection.where else None
    for part in parts:
        clips = matched = 0
        known = selection.done.get(part.shard.uri)
        for table in _tables(part, storage, passthrough, step):
            table = _with_own_id(table, part)
            if condition is not None:
                table = condition.filter(table)
            clips += table.num_rows
            if known is not None:
                fresh = table.filter(pc.invert(pc.is_in(table["clip_id"], value_set=known)))
                matched += table.num_rows - fresh.num_rows
                table = fresh
            if table.num_rows:
                yield table
        if finished is not None:
            finished(part, clips, matched)


def _tables(part: Part, storage: Storage, passthrough: Passthrough, step: Step) -> Iterator[pa.Table]:
    tables = part.reader.tables(part.shard, storage, passthrough, part.slice)
    while (problem := step()) is None:
        table = next(tables, None)
        if table is None:
            return
        yield table
        del table  # else its audio stays in memory beside that of the next
    error = broken(f"{part.shard.name} cannot be read to its end: {problem}")
    yield shard_row(part.shard, error, passthrough)


def _with_own_id(table: pa.Table, part: Part) -> pa.Table:
    """Several parts of one shard may be broken; each then has an error row, with an id of its own."""
    if part.number == 0:
        return table
    broken = pc.equal(table["clip_id"], part.shard.clip_id(""))
    ids = pc.if_else(broken, part.shard.clip_id(f"part-{part.number}"), table["clip_id"])
    return table.set_column(table.schema.get_field_index("clip_id"), "clip_id", ids)
