"""The dataset graph of a job: shards -> clips -> features -> annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset
from ray.data.checkpoint import IdColumnCheckpointManager
from ray.data.datasource import FilenameProvider

from pipeline.annotate.checkpoints import Backbone, configs_of, extractor_of
from pipeline.annotate.heads import AnnotatorSettings
from pipeline.annotate.stage import Annotator
from pipeline.corpus.datasource import AudioShards
from pipeline.engine.cluster import Shares
from pipeline.features.stage import Featurizer
from pipeline.features.windows import WindowPlan
from pipeline.schema import output_schema, partial_schema
from pipeline.spec import JobSpec
from pipeline.storage import Storage
from pipeline.tasks import columns_of
from pipeline.tasks.base import TaskFiles
from w2vbert.decoding.greedy import total_stride

# torch keeps up to 1,024 compiled operations by the shapes of their operands, in oneDNN and in the layer
# above it. Packs hardly ever have the same shape twice: they would pile up, and leave the heap full of holes.
_FEW_PRIMITIVES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8", "LRU_CACHE_CAPACITY": "8"}


class Passes:
    """How often the encoder ran; an actor that the model actors report to."""

    def __init__(self) -> None:
        self._passes = self._frames = 0

    def add(self, passes: int, frames: int) -> None:
        self._passes += passes
        self._frames += frames

    def total(self) -> dict[str, int]:
        return {"passes": self._passes, "frames": self._frames}


class AnnotatorActor:
    """An `Annotator` whose checkpoints and settings come from the object store."""

    def __init__(
        self,
        backbones: Sequence[Mapping[str, ray.ObjectRef]],
        settings: ray.ObjectRef,
        schema: pa.Schema,
        passes: ray.actor.ActorHandle,
    ) -> None:
        files = [{task: ray.get(held) for task, held in one.items()} for one in backbones]
        self._annotator = Annotator(files, ray.get(settings), schema, passes.add.remote)

    def __call__(self, table: pa.Table) -> pa.Table:
        return self._annotator(table)


def annotated(
    source: AudioShards,
    spec: JobSpec,
    shares: Shares,
    backbones: Sequence[Backbone],
    files: Mapping[str, TaskFiles],
    carried: pa.Schema,
    storage: Storage,
    metadata: dict[str, str],
    passes: ray.actor.ActorHandle,
) -> Dataset:
    """The graph up to the rows that are to be written."""
    extractor = extractor_of(backbones)
    options = {name: spec.options(name) for name in spec.tasks}
    settings = AnnotatorSettings(
        tasks=spec.tasks,
        options=options,
        frame_s=extractor.frame_s,
        files=files,
        dtype=spec.compute.dtype,
        token_budget=spec.compute.token_budget,
        threads=shares.threads,
    )
    clips = ray.data.read_datasource(source, num_cpus=shares.task_cpus)
    if spec.corpus.limit is not None:
        clips = clips.limit(spec.corpus.limit)
    features = clips.map_batches(
        Featurizer,
        fn_constructor_args=(extractor, storage, carried),
        fn_constructor_kwargs={
            "channel": spec.corpus.channel,
            "max_duration_s": spec.corpus.max_duration_s,
            "half": spec.compute.dtype != "float32",
            "plan": window_plan(spec, backbones, extractor.frame_s),
            "vad": spec.corpus.vad,
        },
        batch_size=None,
        batch_format="pyarrow",
        compute=shares.featurize_pool,
        num_cpus=shares.featurize_cpus,
    )
    stages = [list(backbones)] if shares.one_pool else [[backbone] for backbone in backbones]
    table: Dataset = features
    done: list[Backbone] = []
    for stage in stages:
        done += stage
        columns = columns_of(spec.tasks, options, configs_of(done))
        if len(done) == len(backbones):
            schema = output_schema(carried, columns).with_metadata(metadata)
        else:
            schema = partial_schema(carried, columns)
        # The public map_batches wants a number of rows where GPUs are asked for; here a block is a batch, so
        # that a long recording is one by itself and memory stays bounded.
        table = table.map_batches_internal(
            AnnotatorActor,
            fn_constructor_args=(
                [{task: ray.put(files) for task, files in held.checkpoints.items()} for held in stage],
                ray.put(settings),
                schema,
                passes,
            ),
            batch_size=None,
            batch_format="pyarrow",
            compute=shares.annotate_pool,
            num_cpus=shares.annotate_cpus,
            num_gpus=shares.annotate_gpus or None,
            runtime_env={"env_vars": _FEW_PRIMITIVES},
        )
    return table


def window_plan(spec: JobSpec, backbones: Sequence[Backbone], frame_s: float) -> WindowPlan:
    """Windows in frames, starting where frames after an adapter start too."""
    align = max(total_stride(config) for config in configs_of(backbones).values())
    return WindowPlan(round(spec.compute.window_s / frame_s), round(spec.compute.overlap_s / frame_s), align)


class Ledgered(IdColumnCheckpointManager):
    """Leaves restoring to the ledger, which looks into unfinished shards only; Ray would load every id."""

    def load_checkpoint(self, *_: Any, **__: Any) -> tuple[None, int]:
        return None, 0


class RunFiles(FilenameProvider):
    """Names files after their run, so that the ledger can tell whose they are."""

    def __init__(self, run_id: str) -> None:
        super().__init__(dataset_uuid=run_id, file_format="parquet")
