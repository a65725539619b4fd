"""--limit: Ray's own limit behind the read tasks keeps the ledger's books straight, and reads little more."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import soundfile
from ray.data import DataContext

from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.listing import discover
from pipeline.corpus.parts import Selection
from pipeline.engine.datasink import TableSink
from pipeline.engine.datasource import AudioShards
from pipeline.engine.run_state import RunState
from pipeline.schema import ERROR
from pipeline.storage import Storage, StorageOptions
from pipeline.table.ledger import Ledger
from pipeline.table.log.plans import Work

STORAGE = Storage(StorageOptions())
CLIPS = 40


def identity(clips: pa.Table) -> pa.Table:
    return clips.select(["clip_id", "shard", "error"])


def annotate(ledger: Ledger, work: Work, limit: int | None) -> list[str]:
    """The graph of a job without its models; the ids it wrote."""
    ledger.begin(work)
    state, finished = RunState(), ledger.shard_counter(work.run_id)
    selection = Selection(work.where, work.done)
    source = AudioShards(work.shards, STORAGE, Passthrough(pa.schema([])), selection, finished, state)
    clips = ray.data.read_datasource(source, num_cpus=0.25)
    if limit is not None:
        clips = clips.limit(limit)
    schema = pa.schema([("clip_id", pa.string()), ("shard", pa.string()), ("error", ERROR)])
    sink = TableSink(ledger.writer(work.run_id, schema), 10, state.report("write"))
    clips.map_batches(identity, batch_format="pyarrow", num_cpus=0.25).write_datasink(
        sink, ray_remote_args={"num_cpus": 0.25}
    )
    written = [record for record in ledger.files() if record.run_id == work.run_id]
    assert sorted(sink.written.files, key=lambda record: record.file) == written
    files = ledger.data_files_of(work.run_id)
    return [row for uri in files for row in pq.ParquetFile(uri).read()["clip_id"].to_pylist()]


@pytest.mark.usefixtures("local_ray")
def test_runs_of_a_few_clips_each_get_through_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DataContext.get_current(), "target_max_block_size", 1 << 20)
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 100_000)
    soundfile.write(buffer, noise, 16_000, format="WAV")
    for number in range(3):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for key in range(CLIPS):
                member = tarfile.TarInfo(f"{key}.wav")
                member.size = len(buffer.getvalue())
                tar.addfile(member, io.BytesIO(buffer.getvalue()))
    ledger = Ledger(str(tmp_path / "out"), STORAGE)
    shards = discover([str(tmp_path)], STORAGE, outputs=[ledger.output])
    with ledger.locked():
        go_on(ledger, shards)


def go_on(ledger: Ledger, shards: list[Shard]) -> None:
    """Nights of so many clips each, until there is nothing more."""
    wrote: list[str] = []
    for night, limit in enumerate([1, 50, 10, 100, 100]):
        ledger.open()
        work = ledger.plan(shards, f"run{night}")
        if not work.shards:
            assert len(wrote) == 3 * CLIPS
            break
        new = annotate(ledger, work, limit)
        # No more than asked for, and less only where no more is left.
        assert len(new) == min(limit, 3 * CLIPS - len(wrote))
        wrote += new
        plan = Path(ledger.home, "shards", f"run{night}.jsonl")
        ledger.finish(work.run_id, {}, to_the_end=False)
        lines = [json.loads(line) for line in plan.read_text().splitlines()]
        finished = {line["name"] for line in lines if line["finished"]}
        assert all(sum(row.startswith(f"{name}#") for row in wrote) == CLIPS for name in finished)
    assert sorted(wrote) == sorted(f"{number}.tar#{key}" for number in range(3) for key in range(CLIPS))
    assert ledger.plan(shards, "run9").shards == []
