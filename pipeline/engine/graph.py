"""The dataset graph of a job: shards -> clips -> features -> annotations.

Between featurizers and model actors a row is a batch: what one featurizer made, a long recording by itself,
so that memory stays bounded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
from ray.data import Dataset, Datasink

from pipeline.annotate.batches import as_batch, gather, rows_of
from pipeline.engine.cluster import TASK_CPUS, task_errors
from pipeline.engine.isolation import Isolation, Starting
from pipeline.engine.run_state import Report, RunState, timed, watched
from pipeline.errors import Code, Stage

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
# Ray shows all GPUs of a node to actors that asked for none: they are made blind before torch looks.
_VISIBLE = "CUDA_VISIBLE_DEVICES"


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
        settings: of the model actors, but for what the pool decides.
        limit: of clips.
    """

    source: AudioShards
    featurizer: Callable[[], Featurizer]
    models: Sequence[ModelStage]
    settings: AnnotatorSettings
    limit: int | None = None

    def write(self, sink: Datasink[Any], resources: Resources, state: RunState) -> None:
        """Runs the stages.

        Raises:
            JobError: an actor cannot start, or the job broke off.
        """
        with watched(state, resources), task_errors():
            rows = self.rows(resources, state)
            rows.write_datasink(sink, ray_remote_args={"num_cpus": TASK_CPUS})

    def rows(self, resources: Resources, state: RunState) -> Dataset:
        """The rows of the table, when they are asked for."""
        readers = resources.readers and min(resources.readers, len(self.source.get_read_tasks(1)))
        clips = ray.data.read_datasource(self.source, num_cpus=TASK_CPUS, concurrency=readers)
        if self.limit is not None:
            clips = clips.limit(self.limit)
        isolation = state.isolation("featurize", Stage.DECODE, Code.UNDECODABLE)
        table: Dataset = clips.map_batches(
            FeaturizeActor,
            fn_constructor_args=(self.featurizer, state.report("featurize"), isolation),
            batch_size=None,
            batch_format="pyarrow",
            compute=resources.featurize.strategy,
            num_cpus=resources.featurize.cpus,
        )
        pool = resources.annotate
        settings = ray.put(replace(self.settings, threads=pool.threads, device=pool.device))
        for number, stage in enumerate(self.models, 1):
            checkpoints = [
                {task: ray.put(files) for task, files in held.checkpoints.items()} for held in stage.backbones
            ]
            name = "annotate" if number == 1 else f"annotate {number}"
            isolation = state.isolation(name, Stage.ANNOTATE, Code.MODEL_FAILED)
            means = ActorMeans(settings, state.report(name), isolation, number < len(self.models))
            table = table.map_batches(
                AnnotateActor,
                fn_constructor_args=(checkpoints, stage.schema, means),
                batch_size=1,
                batch_format="pyarrow",
                compute=pool.strategy,
                num_cpus=pool.cpus,
                num_gpus=pool.gpus or None,
            )
        return table


class FeaturizeActor:
    """A featurizer: tables of clips to batches of features."""

    def __init__(self, featurizer: Callable[[], Featurizer], report: Report, isolation: Isolation) -> None:
        os.environ[_VISIBLE] = ""
        self._featurizer, self._report, self._isolation = featurizer(), report, isolation

    def __call__(self, clips: pa.Table) -> Iterator[pa.Table]:
        with self._isolation.block(clips) as (block, starting):
            yield from gather(timed(self._featurizer(block, starting), self._report), _BATCH_BYTES)


@dataclass(frozen=True)
class ActorMeans:
    """What a model actor is given beside its checkpoints.

    Attributes:
        settings: where they are in the object store.
        more_follow: other models.
    """

    settings: ray.ObjectRef
    report: Report
    isolation: Isolation
    more_follow: bool


class AnnotateActor:
    """Models: batches to the rows of the table, or to batches where other models follow."""

    def __init__(
        self, checkpoints: Sequence[Mapping[str, ray.ObjectRef]], schema: pa.Schema, means: ActorMeans
    ) -> None:
        os.environ.update(_FEW_PRIMITIVES)  # read when the first operation runs
        from pipeline.annotate.stage import Annotator

        files: list[dict[str, Any]] = [
            {task: ray.get(held) for task, held in of_one.items()} for of_one in checkpoints
        ]
        settings: AnnotatorSettings = ray.get(means.settings)
        if settings.device == "cpu":
            os.environ[_VISIBLE] = ""
        self._annotator = Annotator(files, settings, schema, self._count)
        self._means = means

    def __call__(self, batch: pa.Table) -> pa.Table:
        started = time.perf_counter()
        with self._means.isolation.block(rows_of(batch)) as (block, starting):
            table = self._annotator(block) if starting is None else self._one_by_one(block, starting)
        self._means.report("seconds", time.perf_counter() - started)
        return as_batch(table) if self._means.more_follow else table

    def _one_by_one(self, block: pa.Table, starting: Starting) -> pa.Table:
        rows = []
        for row in range(block.num_rows):
            starting(row)
            rows.append(self._annotator(block.slice(row, 1)))
        return pa.concat_tables(rows)

    def _count(self, passes: int, frames: int) -> None:
        self._means.report("passes", passes)
        self._means.report("frames", frames)
