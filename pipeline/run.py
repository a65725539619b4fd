"""A job from its spec to its summary: the way of a clip, top to bottom."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import ray
from ray.data import DataContext, Dataset
from ray.data.checkpoint import CheckpointConfig, IdColumnCheckpointManager
from ray.data.datasource import FilenameProvider

from pipeline.annotate import Annotator
from pipeline.cluster import Shares, connect, share_out
from pipeline.featurize import Featurizer
from pipeline.ledger import Ledger, Work
from pipeline.models import CheckpointFiles, read_checkpoint
from pipeline.retry import drop_rows
from pipeline.schema import output_schema
from pipeline.shards import Format, Shard
from pipeline.source import AudioShards
from pipeline.spec import JobSpec
from pipeline.storage import Storage, path_of
from pipeline.summary import Tally, as_json, tally_file, tally_files
from pipeline.survey import blaming_output, packed_schema, survey
from w2vbert.features import SeamlessM4TFeatureExtractor

_PACKAGES = ("w2vbert", "torch", "torchaudio", "ray", "pyarrow", "soundfile")
_BLOCK_BYTES = 16 << 20
Say = Callable[[str], None]


def run(spec: JobSpec, *, say: Say = print) -> dict[str, Any]:
    """Transcribes what the output does not hold yet; the run's summary.

    Raises:
        JobError: bad configuration, before any work starts.
    """
    started = time.monotonic()
    storage = Storage(spec.storage.with_environment())
    output = storage.normalise(spec.output)
    ledger = Ledger(output, storage)
    checkpoint = read_checkpoint(spec.model, storage)
    identity = {"model_digest": checkpoint.digest, **spec.output_settings()}
    found = survey(spec, ledger, identity)
    work, carried = found.work, found.carried
    for line in found.for_the_log():
        say(line)
    for run_id in work.unclosed:
        tally = Tally()
        for uri in ledger.data_files_of(run_id):
            tally.add(tally_file(uri, storage))
        facts = {"run_id": run_id, "output": output, "killed_before_summary": True}
        ledger.finish(run_id, as_json(tally, facts), to_the_end=False)
    if not work.shards:
        say("nothing is new")
        facts = _facts(spec, work, started, output, rtfx=None)
        return as_json(Tally(), facts)

    connect(spec.ray_address)
    shares = share_out(spec)
    with blaming_output(spec, storage):
        ledger.declare({**identity, "carried": packed_schema(carried)})
        ledger.begin(work)
        drop_rows(ledger, work.failed)
    metadata = {
        "w2vbert.run_id": work.run_id,
        "w2vbert.model": json.dumps({"name": checkpoint.name, "digest": checkpoint.digest}),
        "w2vbert.spec": json.dumps(spec.public(), ensure_ascii=False),
        "w2vbert.versions": json.dumps({name: version(name) for name in _PACKAGES}),
    }
    context = DataContext.get_current()
    context.target_max_block_size = _BLOCK_BYTES
    # Ray commits each file in two phases; which rows are done, the ledger knows (see `_Ledgered`).
    context.checkpoint_config = CheckpointConfig(
        id_column="clip_id",
        checkpoint_path=path_of(ledger.commit_uri(work.run_id)),
        override_filesystem=storage.arrow_filesystem(output),
        delete_checkpoint_on_success=False,
        checkpoint_manager_cls=_Ledgered,
    )
    source = AudioShards(work, storage, carried, census=ledger.census_uri(work.run_id))
    dataset = _annotated(source, spec, shares, checkpoint, carried, storage, metadata)
    dataset.write_parquet(
        path_of(output),
        filesystem=storage.arrow_filesystem(output),
        filename_provider=_RunFiles(work.run_id),
        min_rows_per_file=spec.rows_per_file or _rows_per_file(work.shards),
        ray_remote_args={"num_cpus": shares.task_cpus},
        compression="zstd",
        schema=output_schema(carried).with_metadata(metadata),
    )
    tally = tally_files(ledger.data_files_of(work.run_id), storage)
    wall = time.monotonic() - started
    facts = _facts(spec, work, started, output, rtfx=tally.seconds / wall if not work.clips_done else None)
    facts["stage_s"] = _stage_seconds(dataset)
    facts["model"] = {"name": checkpoint.name, "digest": checkpoint.digest}
    summary = as_json(tally, facts)
    ledger.finish(work.run_id, summary, to_the_end=spec.limit is None)
    return summary


def _annotated(
    source: AudioShards,
    spec: JobSpec,
    shares: Shares,
    checkpoint: CheckpointFiles,
    carried: pa.Schema,
    storage: Storage,
    metadata: dict[str, str],
) -> Dataset:
    """The graph: shards -> clips -> features -> annotations."""
    extractor = SeamlessM4TFeatureExtractor.from_pretrained(checkpoint.directory())
    clips = ray.data.read_datasource(source, num_cpus=shares.task_cpus)
    if spec.limit is not None:
        clips = clips.limit(spec.limit)
    features = clips.map_batches(
        Featurizer,
        fn_constructor_args=(extractor, storage, carried, spec.channel, spec.max_duration_s),
        fn_constructor_kwargs={"half": spec.dtype != "float32"},
        batch_size=None,
        batch_format="pyarrow",
        compute=shares.featurize_pool,
        num_cpus=shares.featurize_cpus,
    )
    # The public map_batches wants a number of rows where GPUs are asked for; here a block is a batch, so that
    # a long recording is one by itself and memory stays bounded.
    annotated: Dataset = features.map_batches_internal(
        Annotator,
        fn_constructor_args=(ray.put(checkpoint), carried),
        fn_constructor_kwargs={
            "dtype": spec.dtype,
            "token_budget": spec.token_budget,
            "threads": shares.threads,
            "metadata": metadata,
        },
        batch_size=None,
        batch_format="pyarrow",
        compute=shares.annotate_pool,
        num_cpus=shares.annotate_cpus,
        num_gpus=shares.annotate_gpus or None,
    )
    return annotated


class _Ledgered(IdColumnCheckpointManager):
    """Leaves restoring to the ledger, which looks into unfinished shards only; Ray would load every id."""

    def load_checkpoint(self, *_: Any, **__: Any) -> tuple[None, int]:
        return None, 0


class _RunFiles(FilenameProvider):
    """Names files after their run, so that the ledger can tell whose they are."""

    def __init__(self, run_id: str) -> None:
        super().__init__(dataset_uuid=run_id, file_format="parquet")


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
                found[operator.operator_name] = float(operator.wall_time.sum) if operator.wall_time else 0.0
            summary = summary.parents[0] if summary.parents else None
        return dict(reversed(found.items()))
    except (AttributeError, TypeError, KeyError) as problem:
        logging.getLogger(__name__).warning("no times by stage: %s", problem)
        return {}
