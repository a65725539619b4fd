"""AudioShards: `pipeline.corpus.parts` as a Ray Data `Datasource`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.data.context import DataContext

from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.parts import Finished, Part, Selection, Step, bundles, read_parts, split_all
from pipeline.corpus.readers import READERS
from pipeline.engine.isolation import Isolation
from pipeline.engine.run_state import Report, RunState, timed
from pipeline.errors import Code, Stage
from pipeline.schema import read_schema
from pipeline.storage import Storage


class AudioShards(Datasource):
    """Audio shards as rows of `read_schema`; arguments are those of `read_parts`, and the run's state."""

    def __init__(
        self,
        shards: Sequence[Shard],
        storage: Storage,
        passthrough: Passthrough,
        selection: Selection,
        finished: Finished,
        state: RunState,
    ) -> None:
        super().__init__()
        self._parts = split_all(shards, storage)
        self._size = sum(shard.size for shard in shards)
        self._files = len(shards) if all(READERS[shard.format].one_clip for shard in shards) else None
        self._storage, self._passthrough, self._selection = storage, passthrough, selection
        self._finished, self._report = finished, state.report("read")
        self._isolation = state.isolation("read", Stage.READ, Code.BROKEN_SHARD)

    def expected(self, found: int, read_bytes: float) -> tuple[int | None, bool]:
        """How many clips there are to do (None: nothing tells), and whether they were counted.

        Args:
            found: by tasks that have read their parts to the end.
            read_bytes: size of these parts.
        """
        if self._files is not None:
            return self._files, True
        whole = sum(part.size for part in self._parts)
        if not read_bytes:
            return None, False
        return round(found * whole / read_bytes), read_bytes >= whole

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
        return [self._task(parts, per_task_row_limit) for parts in bundles(self._parts)]

    def _task(self, parts: list[Part], row_limit: int | None) -> ReadTask:
        selection = self._selection.of(parts)
        read = partial(read_parts, parts, self._storage, self._passthrough, selection, self._finished)
        names = [f"{part.shard.uri} {part.number}" for part in parts]
        size = sum(part.size for part in parts)
        return ReadTask(
            partial(_guarded, read, self._isolation, names, size, self._report),
            BlockMetadata(
                num_rows=None,
                size_bytes=size,
                input_files=tuple(part.shard.uri for part in parts),
                exec_stats=None,
            ),
            schema=read_schema(self._passthrough.schema),
            per_task_row_limit=row_limit,
        )


def _guarded(
    read: Callable[[Step], Iterator[pa.Table]],
    isolation: Isolation,
    names: list[str],
    size: int,
    report: Report,
) -> Iterator[pa.Table]:
    found = 0
    with isolation.steps(*names) as step:
        for table in timed(read(step), report):
            found += table.num_rows
            yield table
    report("found", found)
    report("bytes", size)
