"""A job: checkpoints that annotate a corpus, read and checked, and the stages that they make."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from pipeline.annotate.checkpoints import (
    Backbone,
    configs_of,
    extractor_of,
    read_backbones,
    read_task_files,
)
from pipeline.annotate.heads import AnnotatorSettings
from pipeline.audio.vad import load_detector
from pipeline.engine.cluster import (
    Resources,
    allocate,
    choose_dtype,
    join_named,
    model_device,
    on_a_model_device,
)
from pipeline.engine.datasource import AudioShards
from pipeline.engine.graph import Graph, Models, ModelStage
from pipeline.engine.run_state import Counts
from pipeline.errors import JobError
from pipeline.features.stage import FeatureOptions, Featurizer
from pipeline.features.windows import WindowPlan
from pipeline.reports.cost import Costs, Encoders, matrix_rate
from pipeline.reports.plan import JobPlan, plan_work
from pipeline.reports.progress import Show
from pipeline.reports.summary import EncoderUse, RunSummary
from pipeline.run import Run, Say, carry_out, storage_of
from pipeline.schema import partial_schema
from pipeline.spec import JobSpec
from pipeline.spec.parts import ComputeSpec
from pipeline.table.scan import choose_table, scan
from pipeline.tasks import columns_of


@dataclass(frozen=True)
class Job(Run):
    """A run of models.

    Attributes:
        settings: of the model actors.
        windows: of long recordings.
        dtype_basis: why `--dtype auto` is what it is; empty where it was said, or is not known yet.
        device: "cpu" or "cuda", once it is known.
    """

    spec: JobSpec
    backbones: Sequence[Backbone]
    settings: AnnotatorSettings
    windows: WindowPlan
    dtype_basis: str = ""
    device: str = "cpu"

    @property
    def models(self) -> dict[str, dict[str, str]]:
        """Name and digests of each annotation's checkpoint."""
        return {
            task: {"name": self.spec.models[task], "digest": files.digest, "backbone": held.digest}
            for held in self.backbones
            for task, files in held.checkpoints.items()
        }

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """The annotations."""
        return self._columns(self.backbones)

    def on_cluster(self) -> Job:
        device = model_device(self.spec.compute)
        if self.spec.compute.dtype != "auto":
            return replace(self, device=device)
        width = min(config.hidden_size for config in configs_of(self.backbones).values())
        return replace(self._with_dtype(*choose_dtype(device, width)), device=device)

    def following_table(self) -> Job:
        """With the dtype of the table where there is one: what `--dtype auto` was when it was begun."""
        if self.spec.compute.dtype != "auto" or self.spec.table.overwrite:
            return self
        held = (self.table.identity() or {}).get("dtype")
        return self if held in (None, "auto") else self._with_dtype(held, "as the table was begun")

    def _with_dtype(self, dtype: str, basis: str) -> Job:
        return replace(
            self,
            spec=self.spec.model_copy(
                update={"compute": self.spec.compute.model_copy(update={"dtype": dtype})}
            ),
            identity={**self.identity, "dtype": dtype},
            settings=replace(self.settings, dtype=dtype),
            dtype_basis=basis,
        )

    def resources(self) -> Resources:
        itemsize = 4 if self.spec.compute.dtype == "float32" else 2
        return allocate(self.spec.compute, [held.parameters * itemsize for held in self.backbones])

    def graph(
        self, source: AudioShards, passthrough: pa.Schema, schema: pa.Schema, resources: Resources
    ) -> Graph:
        stages = [ModelStage(self.backbones, schema)]
        if not resources.one_pool:
            made = (self._columns(self.backbones[:number]) for number in range(1, len(self.backbones)))
            schemas = [*(partial_schema(passthrough, columns) for columns in made), schema]
            stages = [ModelStage([held], each) for held, each in zip(self.backbones, schemas, strict=True)]
        models = Models(stages, self.settings)
        return Graph(source, self.featurizer(passthrough), models, self.spec.corpus.limit)

    def encoder_use(self, counts: Counts) -> EncoderUse:
        backbones = [list(held.checkpoints) for held in self.backbones]
        dtype: str = self.spec.compute.dtype
        if dtype == "float32" and self.device == "cuda":
            dtype += ", products in TF32"
        basis = f" (auto: {self.dtype_basis})" if self.dtype_basis else ""
        return EncoderUse(counts.passes, counts.frames, backbones, dtype + basis)

    def _columns(self, backbones: Sequence[Backbone]) -> dict[str, pa.DataType]:
        """The annotations that these backbones' checkpoints make."""
        return columns_of(self.settings.tasks, self.settings.options, configs_of(backbones))

    def featurizer(self, passthrough: pa.Schema) -> Callable[[], Featurizer]:
        """Makes one, in the actor."""
        corpus, compute = self.spec.corpus, self.spec.compute
        options = FeatureOptions(
            channel=corpus.channel,
            max_duration_s=corpus.max_duration_s,
            half=compute.dtype != "float32",
            vad=corpus.vad,
        )
        return partial(
            Featurizer, extractor_of(self.backbones), self.storage, passthrough, self.windows, options
        )


def run(spec: JobSpec, *, say: Say = print, show: Show | None = None) -> RunSummary:
    """Annotates what the output does not hold yet.

    Args:
        say: told what a person may want to know.
        show: called now and then while the stages work, from another thread.

    Raises:
        JobError: bad configuration, before any work starts.
    """
    started = time.monotonic()
    return carry_out(prepare(spec, say), say, started, show)


def plan(spec: JobSpec) -> JobPlan:
    """What `run` would do. Reads what a job reads before it starts, and a few headers; writes nothing.

    Raises:
        JobError: what would stop the job itself before any work.
    """
    lines: list[str] = []
    job = prepare(spec, lines.append)
    changes = scan(job.spec, job.table, job.identity, job.base_table)
    join_named(spec.compute.ray_address)
    job = job.on_cluster()
    first_configs = [next(iter(configs_of([held]).values())) for held in job.backbones]
    encoders = Encoders(first_configs, job.settings.frame_s)
    measure = partial(on_a_model_device, job.device, partial(matrix_rate, dtype=job.settings.dtype))
    lines += changes.log_lines()
    return plan_work(job.spec, changes.work, job.table, Costs(encoders, measure), lines)


def prepare(spec: JobSpec, say: Say) -> Job:
    """Reads and checks what the spec names, but for the input."""
    storage = storage_of(spec)
    if spec.corpus.vad is not None:
        load_detector(spec.corpus.vad)
    metrics = spec.metrics(storage)
    backbones = read_backbones(spec.models, spec.model_flags, spec.tasks, storage)
    options = {name: spec.options(name) for name in spec.tasks}
    settings = AnnotatorSettings(
        tasks=spec.tasks,
        options=options,
        frame_s=extractor_of(backbones).frame_s,
        files=read_task_files(backbones, spec.tasks, options, storage),
        dtype=spec.compute.dtype,
        token_budget=spec.compute.token_budget,
    )
    digests = {task: files.digest for held in backbones for task, files in held.checkpoints.items()}
    identity = {"models": digests, **spec.output_settings()}
    for files in settings.files.values():
        identity |= files.digests()
    table, base_table = choose_table(spec, storage)
    if base_table is not None:
        say(
            f"{base_table.output} holds {', '.join(base_table.tasks())}: these annotations go to "
            f"{table.output}, to be joined by clip_id"
        )
    windows = _windows(spec.compute, settings.frame_s, backbones)
    job = Job(spec, storage, table, base_table, identity, metrics, backbones, settings, windows)
    return job.following_table()


def _windows(compute: ComputeSpec, frame_s: float, backbones: Sequence[Backbone]) -> WindowPlan:
    # Windows start where frames after an adapter start too.
    align = max(config.total_stride for config in configs_of(backbones).values())
    windows = WindowPlan(round(compute.window_s / frame_s), round(compute.overlap_s / frame_s), align)
    if windows.advance <= 0:
        raise JobError(
            f"--window-s {compute.window_s:g} with --overlap-s {compute.overlap_s:g} leaves nothing between "
            f"overlaps: the models' adapters make one frame of {align * frame_s:g} s. Use longer windows."
        )
    return windows
