"""The dataset graph of a run: shards -> clips -> features -> annotations.

Between featurizers and model actors a row is a batch: what one featurizer made, a long recording by itself,
so that memory stays bounded. Without models what featurizers make are the rows of the table.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from traceback import clear_frames
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
from ray.data import DataContext, Dataset, Datasink

from pipeline.annotate.batches import as_batch, gather, rows_of
from pipeline.engine.cluster import TASK_CPUS, ray_is_heard, task_errors
from pipeline.engine.isolation import Isolation, Starting
from pipeline.engine.run_state import Report, RunState, Sums, count_rows, timed, watched
from pipeline.errors import Code, Stage
from pipeline.reports.progress import Progress, Show

if TYPE_CHECKING:  # actors import this file too, and what they do not use would cost each of them seconds
    from pipeline.annotate.checkpoints import Backbone
    from pipeline.annotate.heads import AnnotatorSettings
    from pipeline.engine.cluster import Pool, Resources
    from pipeline.engine.datasource import AudioShards

# torch keeps up to 1,024 compiled operations by the shapes of their operands, in oneDNN and in the layer
# above it. Packs hardly ever have the same shape twice: they would pile up, and leave the heap full of holes.
_FEW_PRIMITIVES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8", "LRU_CACHE_CAPACITY": "8"}
_BATCH_BYTES = _BLOCK_BYTES = 16 << 20
# Ray shows all GPUs of a node to actors that asked for none: they are made blind before torch looks.
_VISIBLE = "CUDA_VISIBLE_DEVICES"

Featurize = Callable[[pa.Table, Starting | None], Iterator[pa.Table]]
"""Clips to tables of features; where clips are taken one by one, told what to call before each."""


@dataclass(frozen=True)
class ModelStage:
    """A pool of model actors: the backbones that each of them holds, and the columns of its rows."""

    backbones: Sequence[Backbone]
    schema: pa.Schema


@dataclass(frozen=True)
class Models:
    """The model stages, one for each pool, and the actors' settings but for what a pool decides."""

    stages: Sequence[ModelStage]
    settings: AnnotatorSettings


@dataclass(frozen=True)
class Graph:
    """The stages of a run.

    Attributes:
        featurizer: makes one, in the actor.
        models: None: what featurizers make are the rows.
        limit: of clips.
    """

    source: AudioShards
    featurizer: Callable[[], Featurize]
    models: Models | None = None
    limit: int | None = None

    def write(
        self, sink: Datasink[Any], resources: Resources, state: RunState, show: Show | None = None
    ) -> None:
        """Runs the stages.

        Args:
            show: called now and then, from another thread.

        Raises:
            JobError: an actor cannot start, or the job broke off.
        """

        def show_sums(sums: Sums, seconds: float) -> None:
            if show is not None:
                show(self.progress(sums, seconds))

        with _released(), _patient(), watched(state, resources, show_sums), task_errors():
            rows = self.rows(resources, state)
            rows.write_datasink(sink, ray_remote_args={"num_cpus": TASK_CPUS})

    def progress(self, sums: Sums, seconds: float) -> Progress:
        """How far the run is, by what its processes counted."""
        total: dict[str, float] = {}
        for (_, what), amount in sums.items():
            total[what] = total.get(what, 0) + amount
        expected, exact = self.source.expected(int(total.get("found", 0)), total.get("bytes", 0))
        if self.limit is not None:
            expected = self.limit if expected is None else min(expected, self.limit)
        return Progress(
            clips=int(total.get("clips", 0)),
            errors=int(total.get("errors", 0)),
            audio_s=total.get("audio_s", 0.0),
            seconds=seconds,
            expected=expected,
            exact=exact,
        )

    def rows(self, resources: Resources, state: RunState) -> Dataset:
        """The rows of the table, when they are asked for."""
        readers = resources.readers and min(resources.readers, len(self.source.get_read_tasks(1)))
        clips = ray.data.read_datasource(self.source, num_cpus=TASK_CPUS, concurrency=readers)
        if self.limit is not None:
            clips = clips.limit(self.limit)
        isolation = state.isolation("featurize", Stage.DECODE, Code.UNDECODABLE)
        models_follow = self.models is not None
        features: Dataset = clips.map_batches(
            FeaturizeActor,
            fn_constructor_args=(self.featurizer, state.report("featurize"), isolation, models_follow),
            batch_size=None,
            batch_format="pyarrow",
            compute=resources.featurize.strategy,
            num_cpus=resources.featurize.cpus,
        )
        if self.models is None or resources.annotate is None:
            return features
        return _annotated(features, self.models, resources.annotate, state)


def _annotated(table: Dataset, models: Models, pool: Pool, state: RunState) -> Dataset:
    settings = ray.put(replace(models.settings, threads=pool.threads, device=pool.device))
    for number, stage in enumerate(models.stages, 1):
        checkpoints = [
            {task: ray.put(files) for task, files in held.checkpoints.items()} for held in stage.backbones
        ]
        name = "annotate" if number == 1 else f"annotate {number}"
        isolation = state.isolation(name, Stage.ANNOTATE, Code.MODEL_FAILED)
        means = ActorMeans(settings, state.report(name), isolation, number < len(models.stages))
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


@contextmanager
def _patient() -> Iterator[None]:
    """Small blocks, and no end of patience: a recording may take hours, and a cluster may be waited for. The
    run says so (`watched`), and does not end. How far it is it says itself, too."""
    context = DataContext.get_current()
    asked: dict[str, Any] = {"target_max_block_size": _BLOCK_BYTES, "execution_no_progress_timeout_s": -1}
    if not ray_is_heard():
        asked |= {"enable_progress_bars": False, "print_on_execution_start": False}
    given = {name: getattr(context, name) for name in asked}
    for name, value in asked.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        for name, value in given.items():
            setattr(context, name, value)


@contextmanager
def _released() -> Iterator[None]:
    """Lets go of what the traceback of a failed run holds: its actors live, and keep their CPUs, as long as
    somebody has a handle, and an exception may be kept for long (by a notebook, or a test)."""
    try:
        yield
    except BaseException as error:
        told: BaseException | None = error
        while told is not None:
            clear_frames(told.__traceback__)
            told = told.__cause__ or told.__context__
        raise


class FeaturizeActor:
    """A featurizer: tables of clips to batches of features, or to rows where no models follow."""

    def __init__(
        self, featurizer: Callable[[], Featurize], report: Report, isolation: Isolation, models_follow: bool
    ) -> None:
        os.environ[_VISIBLE] = ""
        self._featurizer, self._report, self._isolation = featurizer(), report, isolation
        self._models_follow = models_follow

    def __call__(self, clips: pa.Table) -> Iterator[pa.Table]:
        with self._isolation.block(clips) as (block, starting):
            tables = timed(self._featurizer(block, starting), self._report)
            if self._models_follow:
                yield from gather(tables, _BATCH_BYTES)
            else:
                yield from (count_rows(table, self._report) for table in tables)


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
        return as_batch(table) if self._means.more_follow else count_rows(table, self._means.report)

    def _one_by_one(self, block: pa.Table, starting: Starting) -> pa.Table:
        rows = []
        for row in range(block.num_rows):
            starting(row)
            rows.append(self._annotator(block.slice(row, 1)))
        return pa.concat_tables(rows)

    def _count(self, passes: int, frames: int) -> None:
        self._means.report("passes", passes)
        self._means.report("frames", frames)
