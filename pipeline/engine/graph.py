"""The dataset graph of a job: shards -> clips -> features -> annotations.

Between featurizers and model actors a row is a batch: what one featurizer made, a long recording by itself,
so that memory stays bounded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
from ray.data import Dataset

from pipeline.annotate.batches import as_batch, gather, rows_of
from pipeline.engine.counter import Report, RunCounter, timed

if TYPE_CHECKING:  # actors import this file too, and what they do not use would cost each of them seconds
    from pipeline.annotate.checkpoints import Backbone
    from pipeline.annotate.heads import AnnotatorSettings
    from pipeline.engine.cluster import Resources
    from pipeline.engine.datasource import AudioShards
    from pipeline.features.stage import Featurizer

# torch keeps up to 1,024 compiled operations by the shapes of their operands, in oneDNN and in the layer
# above it. Packs hardly ever have the same shape twice: they would pile up, and leave the heap full of holes.
_FEW_PRIMITIVES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8", "LRU_CACHE_CAPACITY": "8"}
_BATCH_BYTES = 16 << 20


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
    """A featurizer: tables of clips to batches of features."""

    def __init__(self, featurizer: Callable[[], Featurizer], report: Report) -> None:
        self._featurizer, self._report = featurizer(), report

    def __call__(self, clips: pa.Table) -> Iterator[pa.Table]:
        return gather(timed(self._featurizer(clips), self._report), _BATCH_BYTES)


class AnnotateActor:
    """Models: batches to the rows of the table, or to batches where other models follow."""

    def __init__(
        self,
        checkpoints: Sequence[Mapping[str, ray.ObjectRef]],
        settings: ray.ObjectRef,
        schema: pa.Schema,
        report: Report,
        more_follow: bool,
    ) -> None:
        os.environ.update(_FEW_PRIMITIVES)  # read when the first operation runs
        from pipeline.annotate.stage import Annotator

        files: list[dict[str, Any]] = [
            {task: ray.get(held) for task, held in of_one.items()} for of_one in checkpoints
        ]
        self._annotator = Annotator(files, ray.get(settings), schema, self._count)
        self._report, self._more_follow = report, more_follow

    def __call__(self, batch: pa.Table) -> pa.Table:
        started = time.perf_counter()
        table = self._annotator(rows_of(batch))
        self._report("seconds", time.perf_counter() - started)
        return as_batch(table) if self._more_follow else table

    def _count(self, passes: int, frames: int) -> None:
        self._report("passes", passes)
        self._report("frames", frames)
