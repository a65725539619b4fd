"""A job from its spec to its summary: the way of a clip, top to bottom."""

from __future__ import annotations

import base64
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import ray
from ray.data import DataContext, Dataset
from ray.data.checkpoint import CheckpointConfig

from pipeline.carried import infer, merge
from pipeline.cluster import connect, share_out
from pipeline.errors import JobError
from pipeline.graph import Ledgered, Passes, RunFiles, annotated, configs
from pipeline.heads import columns_of
from pipeline.ledger import Ledger, Work
from pipeline.models import read_backbones
from pipeline.readers.manifest import manifest_samples
from pipeline.readers.parquet import parquet_columns
from pipeline.readers.tar import tar_samples
from pipeline.schema import column_name, output_schema
from pipeline.shards import Format, Shard, discover
from pipeline.source import AudioShards, without_listed
from pipeline.spec import JobSpec
from pipeline.storage import Storage, path_of
from pipeline.summary import Tally, as_json, tally_file, tally_files

_PACKAGES = ("w2vbert", "torch", "torchaudio", "ray", "pyarrow", "soundfile")
_SAMPLED_SHARDS = 32  # of each layout, to learn the columns that the input carries
_BLOCK_BYTES = 16 << 20
Say = Callable[[str], None]


def run(spec: JobSpec, *, say: Say = print) -> dict[str, Any]:
    """Annotates what the output does not hold yet; the run's summary.

    Raises:
        JobError: bad configuration, before any work starts.
    """
    started = time.monotonic()
    storage = Storage(spec.storage.with_environment())
    backbones = read_backbones(spec, storage)
    digests = {task: files.digest for held in backbones for task, files in held.checkpoints.items()}
    identity = {"models": digests, **spec.output_settings()}
    ledger, elder = _ledgers(spec, storage, say)
    output = ledger.output
    shards, work = _work(spec, ledger, elder, identity)
    say(
        f"{len(shards)} shards: {work.skipped} finished before and skipped, {len(work.shards)} to read"
        + (f" ({work.clips_done} of their clips are done already)" if work.clips_done else "")
    )
    for run_id in work.unclosed:
        tally = Tally()
        for uri in ledger.data_files_of(run_id):
            tally.add(tally_file(uri, storage))
        ledger.finish(
            run_id, as_json(tally, {"run_id": run_id, "output": output, "killed_before_summary": True})
        )
    if not work.shards:
        say("nothing is new")
        facts = _facts(spec, work, started, output, rtfx=None)
        return as_json(Tally(), facts)

    carried = _carried(ledger, work.shards, storage)
    connect(spec.ray_address)
    itemsize = 4 if spec.dtype == "float32" else 2
    shares = share_out(spec, [held.parameters * itemsize for held in backbones])
    with _blaming_output(spec, storage):
        ledger.declare({**identity, "carried": _packed_schema(carried)})
        ledger.begin(work)
    models = {
        task: {"name": spec.models[task], "digest": digest, "backbone": held.digest}
        for held in backbones
        for task in held.checkpoints
        for digest in [digests[task]]
    }
    metadata = {
        "w2vbert.run_id": work.run_id,
        "w2vbert.models": json.dumps(models),
        "w2vbert.spec": json.dumps(spec.public(), ensure_ascii=False),
        "w2vbert.versions": json.dumps({name: version(name) for name in _PACKAGES}),
    }
    context = DataContext.get_current()
    context.target_max_block_size = _BLOCK_BYTES
    # Ray commits each file in two phases; which rows are done, the ledger knows (see `graph.Ledgered`).
    context.checkpoint_config = CheckpointConfig(
        id_column="clip_id",
        checkpoint_path=path_of(ledger.commit_uri(work.run_id)),
        override_filesystem=storage.arrow_filesystem(output),
        delete_checkpoint_on_success=False,
        checkpoint_manager_cls=Ledgered,
    )
    source = AudioShards(work.shards, storage, carried, census=ledger.census_uri(work.run_id), done=work.done)
    passes = ray.remote(num_cpus=0)(Passes).remote()
    dataset = annotated(source, spec, shares, backbones, carried, storage, metadata, passes)
    dataset.write_parquet(
        path_of(output),
        filesystem=storage.arrow_filesystem(output),
        filename_provider=RunFiles(work.run_id),
        min_rows_per_file=spec.rows_per_file or _rows_per_file(work.shards),
        ray_remote_args={"num_cpus": shares.task_cpus},
        compression="zstd",
        schema=output_schema(carried, columns_of(spec, configs(backbones))).with_metadata(metadata),
    )
    tally = tally_files(ledger.data_files_of(work.run_id), storage)
    wall = time.monotonic() - started
    facts = _facts(spec, work, started, output, rtfx=tally.seconds / wall if not work.clips_done else None)
    facts["stage_s"] = _stage_seconds(dataset)
    facts["models"] = models
    facts["encoder"] = {
        **ray.get(passes.total.remote()),
        "backbones": [[str(task) for task in held.checkpoints] for held in backbones],
    }
    summary = as_json(tally, facts)
    ledger.finish(work.run_id, summary)
    return summary


def _ledgers(spec: JobSpec, storage: Storage, say: Say) -> tuple[Ledger, Ledger | None]:
    """The ledger of the output. Where the output is a table of other annotations: that of a sibling, and its own.

    A table's files all have the same columns, and rewriting the rows of a finished table for one more column
    would cost as much as the table and could be killed half-way. So what is added later stands in a table of its
    own beside it, with the same ids.
    """
    output = storage.normalise(spec.output).rstrip("/")
    ledger = Ledger(output, storage)
    with _blaming_output(spec, storage):
        held = ledger.table()
    tasks = {str(task) for task in spec.models}
    if held is None or tasks & set(held.get("models", tasks)):
        return ledger, None
    sibling = f"{output}-{'-'.join(sorted(tasks))}"
    say(
        f"{output} holds {', '.join(held['models'])}: these annotations go to {sibling}, to be joined by clip_id"
    )
    return Ledger(sibling, storage), ledger


def _work(
    spec: JobSpec, ledger: Ledger, elder: Ledger | None, identity: Mapping[str, Any]
) -> tuple[list[Shard], Work]:
    """What the input holds and what of it is left to do."""
    storage, output = ledger.storage, ledger.output
    with _blaming_output(spec, storage):
        known = {} if spec.overwrite else ledger.known_names()
        if elder is not None:
            known = {**elder.known_names(), **known}  # ids are those of the table beside it
    # The input is looked at first: --overwrite must delete nothing for a job that cannot run.
    shards = without_listed(discover(spec.input, storage, output=output, known_names=known), storage)
    with _blaming_output(spec, storage):
        if spec.overwrite:
            ledger.clear()
        ledger.require(identity)
    run_id = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ") + f"-{uuid.uuid4().hex[:6]}"
    return shards, ledger.plan(shards, run_id)


@contextmanager
def _blaming_output(spec: JobSpec, storage: Storage) -> Iterator[None]:
    """Turns what storage says about the output (no such bucket, no right to write) into a JobError."""
    try:
        yield
    except JobError:
        raise
    except Exception as problem:  # every protocol has exceptions of its own
        raise JobError(f"--output {storage.explain(spec.output, problem)}.") from problem


def _carried(ledger: Ledger, shards: list[Shard], storage: Storage) -> pa.Schema:
    """The input's own columns: fixed by the first run of an output, so that all its files agree."""
    held = ledger.table()
    if held is not None and "carried" in held:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(held["carried"])))
    schemas = []
    for kind, look in (
        (Format.PARQUET, lambda shard: _renamed(parquet_columns(shard, storage))),
        (Format.TAR, lambda shard: infer(tar_samples(shard, storage))),
        (Format.MANIFEST, lambda shard: infer(manifest_samples(shard, storage))),
    ):
        of_kind = [shard for shard in shards if shard.format is kind]
        step = max(1, len(of_kind) // _SAMPLED_SHARDS)
        problems = []
        found = []
        for shard in of_kind[::step]:
            try:
                found.append(look(shard))
            except Exception as problem:  # a broken shard is an error row later, not the end of the job
                problems.append(problem)
        if not found and len(of_kind) == len(shards) and problems and isinstance(problems[0], JobError):
            raise problems[0]
        schemas += found
    return merge(schemas)


def _renamed(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_name(column_name(field.name)) for field in schema])


def _packed_schema(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


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
