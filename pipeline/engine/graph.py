"""The dataset graph of a job: shards -> clips -> features -> annotations.

Between featurizers and model actors a row is a pack: a table of clips, each column a list. So a batch of one
row is what one featurizer made, a long recording is one by itself, and memory stays bounded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset

from pipeline.annotate.checkpoints import Backbone
from pipeline.annotate.heads import AnnotatorSettings
from pipeline.annotate.stage import Annotator
from pipeline.engine.cluster import Resources
from pipeline.engine.counter import Report, RunCounter, timed
from pipeline.engine.datasource import AudioShards
from pipeline.features.stage import Featurizer

# torch keeps up to 1,024 compiled operations by the shapes of their operands, in oneDNN and in the layer
# above it. Packs hardly ever have the same shape twice: they would pile up, and leave the heap full of holes.
_FEW_PRIMITIVES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8", "LRU_CACHE_CAPACITY": "8"}
_PACK_BYTES = 16 << 20


@dataclass(frozen=True)
class ModelStage:
    """A pool of model actors: the backbones that each of them holds, and the columns of its rows."""

    backbones: Sequence[Backbone]
    schema: pa.Schema


@dataclass(frozen=True)
class Graph:
    """The stages of a job.

    Attributes:
        featurizer: makes one, in the actor.
        models: one stage for each pool, in turn.
        settings: of the model actors.
        limit: of clips.
    """

    source: AudioShards
    featurizer: Callable[[], Featurizer]
    models: Sequence[ModelStage]
    settings: AnnotatorSettings
    limit: int | None = None

    def rows(self, resources: Resources, counter: RunCounter) -> Dataset:
        """The rows of the table, when they are asked for."""
        clips = ray.data.read_datasource(self.source, num_cpus=resources.task_cpus)
        if self.limit is not None:
            clips = clips.limit(self.limit)
        table: Dataset = clips.map_batches(
            FeaturizeActor,
            fn_constructor_args=(self.featurizer, counter.report("featurize")),
            batch_size=None,
            batch_format="pyarrow",
            compute=resources.featurize.strategy,
            num_cpus=resources.featurize.cpus,
        )
        settings = ray.put(self.settings)
        for number, stage in enumerate(self.models, 1):
            checkpoints = [
                {task: ray.put(files) for task, files in held.checkpoints.items()} for held in stage.backbones
            ]
            report = counter.report("annotate" if number == 1 else f"annotate {number}")
            table = table.map_batches(
                AnnotateActor,
                fn_constructor_args=(checkpoints, settings, stage.schema, report, number < len(self.models)),
                batch_size=1,
                batch_format="pyarrow",
                compute=resources.annotate.strategy,
                num_cpus=resources.annotate.cpus,
                num_gpus=resources.annotate.gpus or None,
            )
        return table


class FeaturizeActor:
    """A featurizer: tables of clips to packs."""

    def __init__(self, featurizer: Callable[[], Featurizer], report: Report) -> None:
        self._featurizer, self._report = featurizer(), report

    def __call__(self, clips: pa.Table) -> Iterator[pa.Table]:
        held: list[pa.Table] = []
        for table in timed(self._featurizer(clips), self._report):
            if held and table.nbytes > _PACK_BYTES:  # a long recording, which is never copied
                yield as_pack(pa.concat_tables(held))
                held = []
            held.append(table)
            if sum(one.nbytes for one in held) > _PACK_BYTES:
                yield as_pack(pa.concat_tables(held))
                held = []
        if held:
            yield as_pack(pa.concat_tables(held))


class AnnotateActor:
    """Models: packs to the rows of the table, or to packs where other models follow."""

    def __init__(
        self,
        checkpoints: Sequence[Mapping[str, ray.ObjectRef]],
        settings: ray.ObjectRef,
        schema: pa.Schema,
        report: Report,
        more_follow: bool,
    ) -> None:
        os.environ.update(_FEW_PRIMITIVES)  # read when the first operation runs
        files: list[dict[str, Any]] = [
            {task: ray.get(held) for task, held in of_one.items()} for of_one in checkpoints
        ]
        self._annotator = Annotator(files, ray.get(settings), schema, self._count)
        self._report, self._more_follow = report, more_follow

    def __call__(self, pack: pa.Table) -> pa.Table:
        started = time.perf_counter()
        table = self._annotator(rows_of(pack))
        self._report("seconds", time.perf_counter() - started)
        return as_pack(table) if self._more_follow else table

    def _count(self, passes: int, frames: int) -> None:
        self._report("passes", passes)
        self._report("frames", frames)


def as_pack(table: pa.Table) -> pa.Table:
    """A table as one row of lists, without a copy where its columns are of one chunk."""
    ends = pa.array([0, table.num_rows], pa.int64())
    columns = [pa.LargeListArray.from_arrays(ends, _one_chunk(column)) for column in table.columns]
    return pa.Table.from_arrays(columns, names=table.column_names)


def rows_of(pack: pa.Table) -> pa.Table:
    """The table that a pack is, without a copy."""
    return pa.Table.from_arrays(
        [_one_chunk(column).flatten() for column in pack.columns], names=pack.column_names
    )


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
