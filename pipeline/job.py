"""A job from its spec to its summary: the way of a clip, top to bottom."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import ray
from ray.data import DataContext, Dataset

from pipeline.annotate.checkpoints import Backbone, read_backbones
from pipeline.audio.vad import load_detector
from pipeline.cluster import connect, share_out
from pipeline.corpus.datasource import AudioShards
from pipeline.corpus.listing import Format, Shard
from pipeline.engine.datasink import TableSink
from pipeline.graph import Passes, annotated, configs
from pipeline.metrics.der import References
from pipeline.reports.summary import Tally, as_json, tally_file, tally_files
from pipeline.spec import AnnotateSpec, DiarizeSpec, JobSpec, Task, TranscriptOptions, options
from pipeline.storage import Storage
from pipeline.table.ledger import Ledger
from pipeline.table.plans import Work
from pipeline.table.retry import drop_rows
from pipeline.table.scan import Changes, choose_table, opened, output_errors, packed_schema, scan
from pipeline.table.schema import output_schema
from pipeline.tasks.build import columns_of
from pipeline.tasks.decoding.files import DecodingFiles, read_decoding_files
from w2vbert.processor import Wav2Vec2BertProcessor

_PACKAGES = ("w2vbert", "torch", "torchaudio", "ray", "pyarrow", "soundfile")
_BLOCK_BYTES = 16 << 20
Say = Callable[[str], None]


def run(spec: JobSpec, *, say: Say = print) -> dict[str, Any]:
    """Annotates what the output does not hold yet; the run's summary.

    Raises:
        JobError: bad configuration, before any work starts.
    """
    started = time.monotonic()
    storage = Storage(spec.storage.with_environment())
    if spec.vad is not None:
        load_detector(spec.vad)
    references = _references(spec, storage)
    backbones = read_backbones(spec, storage)
    digests = {task: files.digest for held in backbones for task, files in held.checkpoints.items()}
    decoding = _decoding_files(spec, backbones, storage)
    identity = {"models": digests, **spec.output_settings(), **decoding.digests()}
    ledger, base_table = choose_table(spec, storage)
    if base_table is not None:
        say(
            f"{base_table.output} holds {', '.join(base_table.tasks())}: these annotations go to "
            f"{ledger.output}, to be joined by clip_id"
        )
    with opened(spec, ledger):
        changes = scan(spec, ledger, identity, base_table)
        for line in changes.log_lines():
            say(line)
        return _annotate(
            spec, storage, ledger, changes, identity, backbones, decoding, references, started, say
        )


def _annotate(
    spec: JobSpec,
    storage: Storage,
    ledger: Ledger,
    changes: Changes,
    identity: dict[str, Any],
    backbones: list[Backbone],
    decoding: DecodingFiles,
    references: References | None,
    started: float,
    say: Say,
) -> dict[str, Any]:
    work, carried, output = changes.work, changes.passthrough, ledger.output
    digests = identity["models"]
    for run_id in work.interrupted:
        tally = Tally()
        for uri in ledger.data_files_of(run_id):
            tally.add(tally_file(uri, storage, references))
        facts = {"run_id": run_id, "output": output, "killed_before_summary": True}
        ledger.finish(run_id, as_json(tally, facts), to_the_end=False)
    if not work.shards:
        say("nothing is new")
        facts = _facts(spec, work, started, output, rtfx=None)
        return as_json(Tally(), facts)

    connect(spec.ray_address)
    itemsize = 4 if spec.dtype == "float32" else 2
    shares = share_out(spec, [held.parameters * itemsize for held in backbones])
    with output_errors(spec):
        ledger.declare({**identity, "passthrough": packed_schema(carried)})
        ledger.begin(work)
        drop_rows(ledger, work.failed)
    models = {
        task: {"name": spec.models[task], "digest": digests[task], "backbone": held.digest}
        for held in backbones
        for task in held.checkpoints
    }
    metadata = {
        "w2vbert.run_id": work.run_id,
        "w2vbert.models": json.dumps(models),
        "w2vbert.spec": json.dumps(spec.public(), ensure_ascii=False),
        "w2vbert.versions": json.dumps({name: version(name) for name in _PACKAGES}),
    }
    context = DataContext.get_current()
    context.target_max_block_size = _BLOCK_BYTES
    source = AudioShards(work, storage, carried, finished=ledger.shard_counter(work.run_id))
    passes: Any = ray.remote(num_cpus=0)(Passes).remote()
    dataset = annotated(source, spec, shares, backbones, decoding, carried, storage, metadata, passes)
    schema = output_schema(carried, columns_of(spec, configs(backbones))).with_metadata(metadata)
    sink = TableSink(ledger.writer(work.run_id, schema), spec.rows_per_file or _rows_per_file(work.shards))
    dataset.write_datasink(sink, ray_remote_args={"num_cpus": shares.task_cpus})
    tally = tally_files(ledger.data_files_of(work.run_id), storage, references)
    wall = time.monotonic() - started
    facts = _facts(spec, work, started, output, rtfx=tally.seconds / wall if not work.clips_done else None)
    facts["stage_s"] = _stage_seconds(dataset)
    facts["models"] = models
    ran: dict[str, int] = ray.get(passes.total.remote())
    ray.kill(passes)  # a process may make many runs on one cluster
    facts["encoder"] = {
        **ran,
        "backbones": [[task.value for task in held.checkpoints] for held in backbones],
    }
    summary = as_json(tally, facts)
    ledger.finish(work.run_id, summary, to_the_end=spec.limit is None, written=sink.written)
    return summary


def _decoding_files(spec: JobSpec, backbones: Sequence[Backbone], storage: Storage) -> DecodingFiles:
    for backbone in backbones:
        if checkpoint := backbone.checkpoints.get(Task.TRANSCRIBE):
            tokenizer = Wav2Vec2BertProcessor.from_pretrained(checkpoint.settings()).tokenizer
            return read_decoding_files(options(spec, TranscriptOptions), tokenizer, storage)
    return DecodingFiles()


def _references(spec: JobSpec, storage: Storage) -> References | None:
    rttm = spec.reference_rttm if isinstance(spec, DiarizeSpec | AnnotateSpec) else None
    return References.read(storage.normalise(rttm), storage) if rttm else None


def _rows_per_file(shards: list[Shard]) -> int:
    """About 200 files a run: small enough to lose little when killed, large enough to read well."""
    clips = sum(
        1
        if shard.format is Format.AUDIO
        else shard.size // (300 if shard.format is Format.MANIFEST else 100_000)
        for shard in shards
    )
    return min(max(clips // 200, 100), 20_000)


def _facts(spec: JobSpec, work: Work, started: float, output: str, *, rtfx: float | None) -> dict[str, Any]:
    return {
        "run_id": work.run_id,
        "output": output,
        "shards_read": len(work.shards),
        "shards_skipped": work.skipped,
        "clips_done_before": work.clips_done,
        "wall_s": time.monotonic() - started,
        "rtfx": rtfx,
        "spec": spec.public(),
    }


def _stage_seconds(dataset: Dataset) -> dict[str, float]:
    """Wall seconds of all tasks of each stage, from Ray's own statistics."""
    try:
        summary: Any = dataset.get_stats_summary()
        found: dict[str, float] = {}
        while summary is not None:
            for operator in summary.operators_stats:
                name, number = operator.operator_name, 2
                while name in found:  # pools of their own for several backbones
                    name, number = f"{operator.operator_name} {number}", number + 1
                found[name] = float(operator.wall_time.sum) if operator.wall_time else 0.0
            summary = summary.parents[0] if summary.parents else None
        return dict(reversed(found.items()))
    except (AttributeError, TypeError, KeyError) as problem:
        logging.getLogger(__name__).warning("no times by stage: %s", problem)
        return {}
