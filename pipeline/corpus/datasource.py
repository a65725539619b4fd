"""AudioShards: a Ray Data `Datasource`; a shard becomes Arrow rows, one per clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.data.context import DataContext

from pipeline.corpus.clips import Clip, read_table
from pipeline.corpus.condition import Where
from pipeline.corpus.listing import Format, Shard
from pipeline.corpus.readers.base import open_shard
from pipeline.corpus.readers.manifest import manifest_slices, read_manifest
from pipeline.corpus.readers.parquet import open_parquet, read_parquet
from pipeline.corpus.readers.tar import read_tar
from pipeline.errors import ClipError, Code, JobError, Stage
from pipeline.storage import Storage
from pipeline.table.plans import PartOfShard, Work
from pipeline.table.schema import read_schema

# Rows that only name their audio are cheap to read and dear to decode: small parts spread them over actors.
_FILES_IN_A_TASK = 64
_LINES_IN_A_TASK = 256
_BYTES_IN_A_TASK = 512 << 20
Finished = Callable[[PartOfShard, int, int], None]


@dataclass(frozen=True)
class Part:
    """What one read task reads: a shard, or a slice of a large one."""

    shard: Shard
    number: int = 0
    of_parts: int = 1
    row_groups: tuple[int, int] | None = None
    lines: tuple[int, int, int | None] | None = None

    def read(self, storage: Storage, carried: pa.Schema) -> Iterator[pa.Table]:
        match self.shard.format:
            case Format.PARQUET:
                groups = range(*self.row_groups) if self.row_groups else None
                return read_parquet(self.shard, storage, carried, row_groups=groups)
            case Format.TAR:
                return read_tar(self.shard, storage, carried)
            case Format.MANIFEST:
                start, first_line, lines = self.lines or (0, 1, None)
                return read_manifest(
                    self.shard, storage, carried, start=start, first_line=first_line, lines=lines
                )
            case Format.AUDIO:
                return iter([read_table([loose_clip(self.shard)], carried)])


class AudioShards(Datasource):
    """Audio shards as rows of `pipeline.table.schema.read_schema`: a stable id, the audio or where it is, and
    the input's columns. A part of a shard that cannot be read becomes an error row.

    Of the work's shards come the clips that meet its condition and have no row yet.
    """

    def __init__(self, work: Work, storage: Storage, carried: pa.Schema, *, finished: Finished) -> None:
        super().__init__()
        self._parts = [part for shard in work.shards for part in split(shard, storage)]
        self._size = sum(shard.size for shard in work.shards)
        self._work, self._storage, self._carried, self._finished = work, storage, carried, finished

    def get_name(self) -> str:
        return "AudioShards"

    def estimate_inmemory_data_size(self) -> int | None:
        return self._size

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        return [self._task(parts, per_task_row_limit) for parts in self._bundles()]

    def _bundles(self) -> Iterator[list[Part]]:
        """One part a task, but loose files by the dozen."""
        files = [part for part in self._parts if part.shard.format is Format.AUDIO]
        yield from ([part] for part in self._parts if part.shard.format is not Format.AUDIO)
        for start in range(0, len(files), _FILES_IN_A_TASK):
            yield files[start : start + _FILES_IN_A_TASK]

    def _task(self, parts: list[Part], row_limit: int | None) -> ReadTask:
        uris = {part.shard.uri for part in parts}
        read = partial(
            _read,
            parts,
            self._storage,
            self._carried,
            where=self._work.where,
            done={uri: ids for uri, ids in self._work.done.items() if uri in uris},
            finished=self._finished,
        )
        size = sum(part.shard.size // part.of_parts for part in parts)
        return ReadTask(
            read,
            BlockMetadata(
                num_rows=None,
                size_bytes=size,
                input_files=tuple(part.shard.uri for part in parts),
                exec_stats=None,
            ),
            schema=read_schema(self._carried),
            per_task_row_limit=row_limit,
        )


def _read(
    parts: Sequence[Part],
    storage: Storage,
    carried: pa.Schema,
    *,
    where: str | None,
    done: Mapping[str, pa.Array],
    finished: Finished,
) -> Iterator[pa.Table]:
    condition = Where(where, carried) if where else None
    for part in parts:
        clips = matched = 0
        known = done.get(part.shard.uri)
        for table in part.read(storage, carried):
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
        finished(part, clips, matched)


def _with_own_id(table: pa.Table, part: Part) -> pa.Table:
    """Several parts of one shard may be broken; each then has an error row, with an id of its own."""
    if part.number == 0:
        return table
    broken = pc.equal(table["clip_id"], f"{part.shard.name}#")
    ids = pc.if_else(broken, f"{part.shard.name}#part-{part.number}", table["clip_id"])
    return table.set_column(table.schema.get_field_index("clip_id"), "clip_id", ids)


def split(shard: Shard, storage: Storage) -> list[Part]:
    """A large shard as parts that tasks read side by side."""
    if shard.format is Format.PARQUET and shard.size > _BYTES_IN_A_TASK:
        groups = _row_group_slices(shard, storage)
        return [Part(shard, i, len(groups), row_groups=group) for i, group in enumerate(groups)] or [
            Part(shard)
        ]
    if shard.format is Format.MANIFEST:
        slices = manifest_slices(shard, storage, _LINES_IN_A_TASK)
        return [Part(shard, i, len(slices), lines=lines) for i, lines in enumerate(slices)] or [Part(shard)]
    return [Part(shard)]


def _row_group_slices(shard: Shard, storage: Storage) -> list[tuple[int, int]]:
    """Runs of row groups of about `_BYTES_IN_A_TASK`; none where the footer cannot be read."""
    try:
        with open_shard(shard, storage) as handle:
            footer = open_parquet(handle)[0].metadata
    except Exception:  # the read task tells, as an error row
        return []
    slices: list[tuple[int, int]] = []
    first = size = 0
    for group in range(footer.num_row_groups):
        size += footer.row_group(group).total_byte_size
        if size >= _BYTES_IN_A_TASK or group + 1 == footer.num_row_groups:
            slices.append((first, group + 1))
            first, size = group + 1, 0
    return slices


def without_listed(shards: list[Shard], storage: Storage) -> list[Shard]:
    """Drops loose files that a manifest of the same input names: the manifest's row is the clip."""
    manifests = [shard for shard in shards if shard.format is Format.MANIFEST]
    if not manifests or len(manifests) == len(shards):
        return shards
    listed: set[str] = set()
    for manifest in manifests:
        for table in read_manifest(manifest, storage, pa.schema([])):
            for source in table["source"].to_pylist():
                # What is no place at all is the clip's error, not the job's.
                with suppress(JobError, ValueError):
                    if source:
                        listed.add(storage.normalise(source))
    return [shard for shard in shards if shard.format is not Format.AUDIO or shard.uri not in listed]


def without_unasked(shards: Sequence[Shard], where: Where, carried: pa.Schema) -> list[Shard]:
    """Drops loose files that the condition does not hold for; a file's name decides, none is opened."""
    loose = [shard for shard in shards if shard.format is Format.AUDIO]
    if not loose:
        return list(shards)
    clips = read_table([loose_clip(shard) for shard in loose], carried)
    asked = set(where.filter(clips)["shard"].to_pylist())
    return [shard for shard in shards if shard.format is not Format.AUDIO or shard.uri in asked]


def loose_clip(shard: Shard) -> Clip:
    """A loose audio file is a shard of one clip, with the stem of its name as key."""
    key = PurePosixPath(shard.name).stem
    error = ClipError(Stage.READ, Code.EMPTY, f"{shard.name} has no bytes") if shard.size == 0 else None
    return Clip(f"{shard.name}#{key}", shard.uri, source=shard.uri, error=error)
