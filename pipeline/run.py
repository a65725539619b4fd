"""A run over a corpus from its spec to its summary: the way of a clip, top to bottom."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa

from pipeline import package_version, strict_json
from pipeline.corpus.clips import Shard
from pipeline.corpus.parts import Selection
from pipeline.corpus.readers import READERS
from pipeline.engine.cluster import Resources, connect
from pipeline.engine.datasink import TableSink
from pipeline.engine.datasource import AudioShards
from pipeline.engine.graph import Graph
from pipeline.engine.run_state import Counts, RunState
from pipeline.engine.tally import tally_files
from pipeline.metrics.base import Metric
from pipeline.reports.progress import Show
from pipeline.reports.summary import EncoderUse, RunSummary, Tally, interrupted_json, tally_file
from pipeline.schema import output_schema
from pipeline.spec.run import RunSpec
from pipeline.storage import Storage, hosts_of
from pipeline.table.ledger import Ledger
from pipeline.table.log.plans import Work
from pipeline.table.log.writer import USUAL, Layout, Written
from pipeline.table.retry import drop_rows
from pipeline.table.scan import Changes, opened, output_errors, packed_schema, scan

_PACKAGES = ("w2vbert", "torch", "torchaudio", "ray", "pyarrow", "soundfile")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Run(ABC):
    """All that is settled before any work, whatever is made of each clip.

    Attributes:
        table: that is written.
        base_table: of other annotations, finished, that it stands beside.
        identity: what all runs of the table share: digests of models and files, settings.
        metrics: of the summary, without rows.
        layout: of the table's files.
        most_rows_per_file: where nothing else is asked for.
    """

    spec: RunSpec
    storage: Storage
    table: Ledger
    base_table: Ledger | None
    identity: Mapping[str, Any]
    metrics: Mapping[str, Metric]

    layout: ClassVar[Layout] = USUAL
    most_rows_per_file: ClassVar[int] = 20_000

    @property
    @abstractmethod
    def models(self) -> Mapping[str, Mapping[str, Any]]:
        """What makes each thing that the table has of a clip, for a person to know it again."""

    @property
    @abstractmethod
    def columns(self) -> Mapping[str, pa.DataType]:
        """What stands in the table beside the clip and the input's own columns."""

    def on_cluster(self) -> Run:
        """The same, with what only the cluster that was joined can tell."""
        return self

    @abstractmethod
    def resources(self) -> Resources:
        """How the stages share the cluster, which is joined."""

    @abstractmethod
    def graph(
        self, source: AudioShards, passthrough: pa.Schema, schema: pa.Schema, resources: Resources
    ) -> Graph:
        """The stages.

        Args:
            passthrough: the input's own columns.
            schema: of the rows.
        """

    def encoder_use(self, counts: Counts) -> EncoderUse | None:
        """For the summary; None where no encoder runs."""
        return None

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


def storage_of(spec: RunSpec) -> Storage:
    """The storage that a run reads and writes."""
    corpus = spec.corpus
    hosts = frozenset(corpus.allow_hosts) | hosts_of(corpus.input)
    return Storage(corpus.storage.with_environment(), hosts)


def carry_out(run: Run, say: Say, started: float, show: Show | None = None) -> RunSummary:
    """Makes the rows that the table does not hold yet.

    Args:
        started: when the run began, by `time.monotonic`.
        show: called now and then while the stages work.

    Raises:
        JobError: bad configuration, before any work starts.
    """
    with opened(run.spec, run.table):
        changes = scan(run.spec, run.table, run.identity, run.base_table)
        for line in changes.log_lines():
            say(line)
        with output_errors(run.spec):
            close_interrupted(run, changes.work)
        if not changes.work.shards:
            say("nothing is new")
            return summarise(run, changes.work, run.empty_tally(), started)
        connect(run.spec.compute.ray_address)
        run = run.on_cluster()
        resources, state = run.resources(), RunState()
        began = time.monotonic()
        written = write(run, changes, resources, state, show)
        work_s = time.monotonic() - began
        with output_errors(run.spec):
            return finish(run, changes.work, written, state, (started, work_s))


def close_interrupted(run: Run, work: Work) -> None:
    """Writes the summaries of killed runs that have nothing left to do."""
    for run_id in work.interrupted:
        tally = run.empty_tally()
        for uri in run.table.data_files_of(run_id):
            tally.add(tally_file(uri, run.storage, run.metrics))
        run.table.finish(run_id, interrupted_json(run_id, run.table.output, tally), to_the_end=False)


def write(
    run: Run, changes: Changes, resources: Resources, state: RunState, show: Show | None = None
) -> Written:
    """Takes the clips that are left through the stages, and writes their rows. What ends it from outside is
    told how many of them are kept."""
    spec, table, work = run.spec, run.table, changes.work
    passthrough = changes.passthrough
    with output_errors(spec):
        if spec.table.overwrite:
            table.clear()
        table.declare({**run.identity, "passthrough": packed_schema(passthrough.schema)})
        table.begin(work)
        drop_rows(table, work.failed)
    schema = output_schema(passthrough.schema, run.columns).with_metadata(run.metadata(work.run_id))
    source = AudioShards(
        work.shards,
        run.storage,
        passthrough,
        Selection(work.where, work.done),
        table.shard_counter(work.run_id),
        state,
    )
    writer = table.writer(work.run_id, schema, run.layout)
    sink = TableSink(
        writer,
        spec.table.rows_per_file or _rows_per_file(work.shards, run.most_rows_per_file),
        state.report("write"),
    )
    try:
        run.graph(source, passthrough.schema, schema, resources).write(sink, resources, state, show)
    except (KeyboardInterrupt, SystemExit) as stopped:
        stopped.add_note(f"after {writer.rows_written():,} clips")
        raise
    return sink.written


def finish(run: Run, work: Work, written: Written, state: RunState, times: tuple[float, float]) -> RunSummary:
    """Sums up what the run wrote, and says in the table that the run is over.

    Args:
        times: when the run began, by `time.monotonic`, and seconds that the stages took.
    """
    started, work_s = times
    own = {run.table.uri_of(record) for record in written.files}
    before = [uri for uri in run.table.data_files_of(work.run_id) if uri not in own]
    tally, tally_before = (tally_files(uris, run.storage, run.metrics) for uris in (sorted(own), before))
    counts = state.close()
    summary = replace(
        summarise(run, work, tally, started),
        before=tally_before,
        work_s=work_s,
        undelivered=written.undelivered,
        stage_s=counts.stage_s,
        models=run.models,
        encoder=run.encoder_use(counts),
    )
    to_the_end = run.spec.corpus.limit is None
    run.table.finish(work.run_id, summary.as_json(), to_the_end=to_the_end, written=written)
    return summary


def summarise(run: Run, work: Work, tally: Tally, started: float) -> RunSummary:
    return RunSummary(
        run_id=work.run_id,
        output=run.table.output,
        tally=tally,
        before=run.empty_tally(),
        shards_read=len(work.shards),
        shards_skipped=work.skipped,
        wall_s=time.monotonic() - started,
        spec=run.spec.public(),
    )


def _rows_per_file(shards: Sequence[Shard], most: int) -> int:
    """About 200 files a run: small enough to lose little when killed, large enough to read well."""
    readers = ((READERS[shard.format], shard) for shard in shards)
    clips = sum(1 if reader.one_clip else shard.size // reader.clip_bytes for reader, shard in readers)
    return min(max(clips // 200, 100), most)
