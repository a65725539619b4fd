"""A job from its spec to its summary: the way of a clip, top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
from ray.data import DataContext

from pipeline import package_version, strict_json
from pipeline.annotate.checkpoints import (
    Backbone,
    configs_of,
    extractor_of,
    read_backbones,
    read_task_files,
)
from pipeline.annotate.heads import AnnotatorSettings
from pipeline.audio.vad import load_detector
from pipeline.corpus.clips import Shard
from pipeline.corpus.parts import Selection
from pipeline.corpus.readers import READERS
from pipeline.engine.cluster import Resources, allocate, connect
from pipeline.engine.datasink import TableSink
from pipeline.engine.datasource import AudioShards
from pipeline.engine.graph import Graph, ModelStage
from pipeline.engine.run_state import RunState
from pipeline.engine.tally import tally_files
from pipeline.errors import JobError
from pipeline.features.stage import FeatureOptions, Featurizer
from pipeline.features.windows import WindowPlan
from pipeline.metrics.base import Metric
from pipeline.reports.cost import Encoders
from pipeline.reports.plan import JobPlan, plan_work
from pipeline.reports.summary import EncoderUse, RunSummary, Tally, interrupted_json, tally_file
from pipeline.schema import output_schema, partial_schema
from pipeline.spec import JobSpec
from pipeline.spec.parts import ComputeSpec
from pipeline.storage import Storage
from pipeline.table.ledger import Ledger
from pipeline.table.log.plans import Work
from pipeline.table.log.writer import Written
from pipeline.table.retry import drop_rows
from pipeline.table.scan import Changes, choose_table, opened, output_errors, packed_schema, scan
from pipeline.tasks import columns_of

_PACKAGES = ("w2vbert", "torch", "torchaudio", "ray", "pyarrow", "soundfile")
_BLOCK_BYTES = 16 << 20
Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """All that is settled before any work.

    Attributes:
        table: that is written.
        base_table: of other annotations, finished, that it stands beside.
        settings: of the model actors.
        identity: what all runs of the table share: digests of models and files, settings.
        windows: of long recordings.
        metrics: of the summary, without rows.
    """

    spec: JobSpec
    storage: Storage
    table: Ledger
    base_table: Ledger | None
    backbones: Sequence[Backbone]
    settings: AnnotatorSettings
    identity: Mapping[str, Any]
    windows: WindowPlan
    metrics: Mapping[str, Metric]

    @property
    def models(self) -> dict[str, dict[str, str]]:
        """Name and digests of each annotation's checkpoint."""
        return {
            task: {"name": self.spec.models[task], "digest": files.digest, "backbone": held.digest}
            for held in self.backbones
            for task, files in held.checkpoints.items()
        }

    def columns(self, backbones: Sequence[Backbone]) -> dict[str, pa.DataType]:
        """The annotations that these backbones' checkpoints make."""
        return columns_of(self.settings.tasks, self.settings.options, configs_of(backbones))

    def metadata(self, run_id: str) -> dict[str, str]:
        """Provenance, for the Parquet files."""
        return {
            "w2vbert.run_id": run_id,
            "w2vbert.models": strict_json.dumps(self.models),
            "w2vbert.spec": strict_json.dumps(self.spec.public()),
            "w2vbert.versions": strict_json.dumps({name: package_version(name) for name in _PACKAGES}),
        }

    def empty_tally(self) -> Tally:
        return Tally(deepcopy(dict(self.metrics)))


def run(spec: JobSpec, *, say: Say = print) -> RunSummary:
    """Annotates what the output does not hold yet.

    Raises:
        JobError: bad configuration, before any work starts.
    """
    started = time.monotonic()
    job = prepare(spec, say)
    with opened(spec, job.table):
        changes = scan(spec, job.table, job.identity, job.base_table)
        for line in changes.log_lines():
            say(line)
        with output_errors(spec):
            close_interrupted(job, changes.work)
        if not changes.work.shards:
            say("nothing is new")
            return summarise(job, changes.work, job.empty_tally(), started)
        with session(job) as (resources, state):
            written = write(job, changes, resources, state)
            with output_errors(spec):
                return finish(job, changes.work, written, state, started)


def plan(spec: JobSpec) -> JobPlan:
    """What `run` would do. Reads what a job reads before it starts, and a few headers; writes nothing.

    Raises:
        JobError: what would stop the job itself before any work.
    """
    lines: list[str] = []
    job = prepare(spec, lines.append)
    changes = scan(spec, job.table, job.identity, job.base_table)
    first_configs = [next(iter(configs_of([held]).values())) for held in job.backbones]
    encoders = Encoders(first_configs, job.settings.frame_s)
    return plan_work(spec, changes.work, job.table, encoders, [*lines, *changes.log_lines()])


def prepare(spec: JobSpec, say: Say) -> Job:
    """Reads and checks what the spec names, but for the input."""
    storage = Storage(spec.corpus.storage.with_environment(), frozenset(spec.corpus.allow_hosts))
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
    return Job(spec, storage, table, base_table, backbones, settings, identity, windows, metrics)


def close_interrupted(job: Job, work: Work) -> None:
    """Writes the summaries of killed runs that have nothing left to do."""
    for run_id in work.interrupted:
        tally = job.empty_tally()
        for uri in job.table.data_files_of(run_id):
            tally.add(tally_file(uri, job.storage, job.metrics))
        job.table.finish(run_id, interrupted_json(run_id, job.table.output, tally), to_the_end=False)


@contextmanager
def session(job: Job) -> Iterator[tuple[Resources, RunState]]:
    """The cluster, its resources shared out among the stages, and what counts their work."""
    compute = job.spec.compute
    connect(compute.ray_address)
    itemsize = 4 if compute.dtype == "float32" else 2
    resources = allocate(compute, [held.parameters * itemsize for held in job.backbones])
    context = DataContext.get_current()
    given = context.target_max_block_size, context.execution_no_progress_timeout_s
    # A recording may take hours, and a cluster may be waited for: the run says so, and does not end.
    context.target_max_block_size, context.execution_no_progress_timeout_s = _BLOCK_BYTES, -1
    try:
        yield resources, RunState()
    finally:
        context.target_max_block_size, context.execution_no_progress_timeout_s = given


def write(job: Job, changes: Changes, resources: Resources, state: RunState) -> Written:
    """Annotates the clips that are left, and writes their rows."""
    spec, storage, table, work = job.spec, job.storage, job.table, changes.work
    passthrough = changes.passthrough
    with output_errors(spec):
        if spec.table.overwrite:
            table.clear()
        table.declare({**job.identity, "passthrough": packed_schema(passthrough.schema)})
        table.begin(work)
        drop_rows(table, work.failed)
    schema = output_schema(passthrough.schema, job.columns(job.backbones)).with_metadata(
        job.metadata(work.run_id)
    )
    graph = Graph(
        source=AudioShards(
            work.shards,
            storage,
            passthrough,
            Selection(work.where, work.done),
            table.shard_counter(work.run_id),
            state,
        ),
        featurizer=_featurizer(job, passthrough.schema),
        models=_model_stages(job, passthrough.schema, schema, one_pool=resources.one_pool),
        settings=job.settings,
        limit=spec.corpus.limit,
    )
    sink = TableSink(
        table.writer(work.run_id, schema),
        spec.table.rows_per_file or _rows_per_file(work.shards),
        state.report("write"),
    )
    graph.write(sink, resources, state)
    return sink.written


def finish(job: Job, work: Work, written: Written, state: RunState, started: float) -> RunSummary:
    """Sums up what the run wrote, and says in the table that the run is over."""
    own = {job.table.uri_of(record) for record in written.files}
    before = [uri for uri in job.table.data_files_of(work.run_id) if uri not in own]
    tally, tally_before = (tally_files(uris, job.storage, job.metrics) for uris in (sorted(own), before))
    counts = state.close()
    backbones = [list(held.checkpoints) for held in job.backbones]
    summary = replace(
        summarise(job, work, tally, started),
        before=tally_before,
        undelivered=written.undelivered,
        stage_s=counts.stage_s,
        models=job.models,
        encoder=EncoderUse(counts.passes, counts.frames, backbones),
    )
    to_the_end = job.spec.corpus.limit is None
    job.table.finish(work.run_id, summary.as_json(), to_the_end=to_the_end, written=written)
    return summary


def summarise(job: Job, work: Work, tally: Tally, started: float) -> RunSummary:
    return RunSummary(
        run_id=work.run_id,
        output=job.table.output,
        tally=tally,
        before=job.empty_tally(),
        shards_read=len(work.shards),
        shards_skipped=work.skipped,
        wall_s=time.monotonic() - started,
        spec=job.spec.public(),
    )


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


def _featurizer(job: Job, passthrough: pa.Schema) -> Callable[[], Featurizer]:
    corpus, compute = job.spec.corpus, job.spec.compute
    options = FeatureOptions(
        channel=corpus.channel,
        max_duration_s=corpus.max_duration_s,
        half=compute.dtype != "float32",
        vad=corpus.vad,
    )
    return partial(Featurizer, extractor_of(job.backbones), job.storage, passthrough, job.windows, options)


def _model_stages(job: Job, passthrough: pa.Schema, schema: pa.Schema, *, one_pool: bool) -> list[ModelStage]:
    if one_pool:
        return [ModelStage(job.backbones, schema)]
    stages = []
    for number, backbone in enumerate(job.backbones, 1):
        last = number == len(job.backbones)
        columns = job.columns(job.backbones[:number])
        stages.append(ModelStage([backbone], schema if last else partial_schema(passthrough, columns)))
    return stages


def _rows_per_file(shards: Sequence[Shard]) -> int:
    """About 200 files a run: small enough to lose little when killed, large enough to read well."""
    readers = ((READERS[shard.format], shard) for shard in shards)
    clips = sum(1 if reader.one_clip else shard.size // reader.clip_bytes for reader, shard in readers)
    return min(max(clips // 200, 100), 20_000)
