"""The dataset graph of a job: shards -> clips -> features -> annotations."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import ray
from ray.data import Dataset

from pipeline.annotate.checkpoints import Backbone, feature_extractor
from pipeline.annotate.stage import Annotator
from pipeline.cluster import Shares
from pipeline.corpus.datasource import AudioShards
from pipeline.features.stage import Featurizer
from pipeline.features.windows import WindowPlan
from pipeline.spec import JobSpec, Task
from pipeline.storage import Storage
from pipeline.table.schema import COST_COLUMNS, feature_schema, output_schema
from pipeline.tasks.build import columns_of
from pipeline.tasks.decoding.files import DecodingFiles
from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.decoding.greedy import ENCODER_FRAME_SECONDS, total_stride

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


def annotated(
    source: AudioShards,
    spec: JobSpec,
    shares: Shares,
    backbones: Sequence[Backbone],
    decoding: DecodingFiles,
    carried: pa.Schema,
    storage: Storage,
    metadata: dict[str, str],
    passes: ray.actor.ActorHandle,
) -> Dataset:
    """The graph up to the rows that are to be written."""
    first = next(iter(backbones[0].checkpoints.values()))
    clips = ray.data.read_datasource(source, num_cpus=shares.task_cpus)
    if spec.limit is not None:
        clips = clips.limit(spec.limit)
    features = clips.map_batches(
        Featurizer,
        fn_constructor_args=(feature_extractor(first.settings()), storage, carried),
        fn_constructor_kwargs={
            "channel": spec.channel,
            "max_duration_s": spec.max_duration_s,
            "half": spec.dtype != "float32",
            "plan": window_plan(spec, backbones),
            "vad": spec.vad,
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
        columns = columns_of(spec, configs(done))
        if len(done) == len(backbones):
            schema = output_schema(carried, columns).with_metadata(metadata)
        else:
            schema = pa.schema([*feature_schema(carried), *columns.items(), *COST_COLUMNS.items()])
        # The public map_batches wants a number of rows where GPUs are asked for; here a block is a batch, so
        # that a long recording is one by itself and memory stays bounded.
        table = table.map_batches_internal(
            Annotator,
            fn_constructor_args=(
                [{task: ray.put(files) for task, files in held.checkpoints.items()} for held in stage],
                spec,
                ray.put(decoding),
                schema,
            ),
            fn_constructor_kwargs={"threads": shares.threads, "passes": passes},
            batch_size=None,
            batch_format="pyarrow",
            compute=shares.annotate_pool,
            num_cpus=shares.annotate_cpus,
            num_gpus=shares.annotate_gpus or None,
            runtime_env={"env_vars": _FEW_PRIMITIVES},
        )
    return table


def window_plan(spec: JobSpec, backbones: Sequence[Backbone]) -> WindowPlan:
    """Windows in frames, starting where frames after an adapter start too."""
    align = max(total_stride(config) for config in configs(backbones).values())
    return WindowPlan(
        round(spec.window_s / ENCODER_FRAME_SECONDS), round(spec.overlap_s / ENCODER_FRAME_SECONDS), align
    )


def configs(backbones: Sequence[Backbone]) -> dict[Task, Wav2Vec2BertConfig]:
    """The configuration of each task's checkpoint."""
    return {task: files.config for backbone in backbones for task, files in backbone.checkpoints.items()}
