"""Jobs without Ray: what a job does to its table, step by step, with clips that are given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpus.parts import Part
from pipeline.corpus.readers import READERS
from pipeline.spec import TranscribeSpec
from pipeline.storage import Storage, StorageOptions
from pipeline.table.ledger import Ledger
from pipeline.table.lock import Holder
from pipeline.table.reader import data_files, visible_files
from pipeline.table.retry import drop_rows, failed_clips
from pipeline.table.scan import Changes, scan
from tests.pipeline.table.outputs import SCHEMA, UNDECODABLE, UNREADABLE, shard

Clips = dict[str, dict[str, str] | None]  # by id, the error
Shards = dict[str, Clips]
IDENTITY = {"models": {"transcribe": "sha256:0"}}
_OF_A_RUN = re.compile(r"(?:|files/|shards/)(run\d+)\.jsonl?")


def corpus(*names: str, undelivered: bool = False) -> Shards:
    """Three clips a shard: one sound, one damaged, and one that storage may not deliver."""
    third = UNREADABLE if undelivered else None
    return {
        name: {f"{name}#sound": None, f"{name}#damaged": UNDECODABLE, f"{name}#far": third} for name in names
    }


def storage_at(server: Any) -> Storage:
    """Through a server, or a proxy before it."""
    return Storage(StorageOptions(endpoint_url=server.endpoint).with_environment())


def look(uris: list[str], storage: Storage, folder: Path) -> Changes:
    """What a job finds to do before it starts."""
    spec = TranscribeSpec(input=uris, output=str(folder / "out"), model="m")
    return scan(spec, Ledger(spec.table.output, storage), spec.output_settings())


@dataclass
class Job:
    """A job that may be started again and again.

    Attributes:
        storage: through which it works.
        direct: through which one looks at what it did; never fails.
        filler: text of each row, so that files have a size.
    """

    output: str
    storage: Storage
    direct: Storage
    shards: Shards
    retry_errors: bool = False
    filler: str = ""
    runs: Iterator[str] = field(default_factory=lambda: (f"run{number:03}" for number in range(999)))

    def start(self) -> None:
        """Raises StorageError or JobError where storage fails it."""
        ledger = Ledger(self.output, self.storage)
        shards = [shard(name) for name in self.shards]
        with ledger.locked():
            ledger.open()
            ledger.require(IDENTITY, ["transcribe"])
            failed = failed_clips(ledger, shards, None, undelivered=not self.retry_errors)
            work = ledger.plan(shards, next(self.runs), failed=failed)
            for run_id in work.interrupted:
                ledger.finish(run_id, {"run_id": run_id}, to_the_end=False)
            if not work.shards:
                return
            ledger.declare(IDENTITY)
            ledger.begin(work)
            drop_rows(ledger, work.failed)
            writer, count = ledger.writer(work.run_id, SCHEMA), ledger.shard_counter(work.run_id)
            for index, each in enumerate(work.shards):
                clips = self.shards[each.name]
                done = work.done[each.uri].to_pylist() if each.uri in work.done else []
                left = {key: error for key, error in clips.items() if key not in done}
                writer.write([self._rows(each.uri, left)], index)
                count(Part(each, READERS[each.format]), len(clips), len(clips) - len(left))
            ledger.finish(work.run_id, {"run_id": work.run_id})

    def _rows(self, uri: str, clips: Clips) -> pa.Table:
        rows = [
            {"clip_id": key, "shard": uri, "error": error, "language": self.filler}
            for key, error in clips.items()
        ]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def held(self) -> Clips:
        """What readers of the table find. Fails where a clip is there twice, or a file that nothing names."""
        counted = data_files(self.output, self.direct)
        seen = visible_files(self.output, self.direct)
        notes = Ledger(self.output, self.direct).records.notes()
        noted = {f"{self.output}/{file}" for _, files in notes for file in files}
        assert set(counted) <= set(seen) <= set(counted) | noted
        found: Clips = {}
        for uri in counted:
            with self.direct.open(uri) as file:
                for row in pq.read_table(file).to_pylist():
                    assert row["clip_id"] not in found
                    found[row["clip_id"]] = row["error"]
        return found

    def assert_whole(self) -> None:
        """Each clip once, every run over, and nothing left of starts that failed."""
        assert self.held() == {key: error for clips in self.shards.values() for key, error in clips.items()}
        assert visible_files(self.output, self.direct) == data_files(self.output, self.direct)
        ledger = Ledger(self.output, self.direct)
        names = [
            uri.removeprefix(f"{ledger.home}/") for uri in self.direct.list_files(ledger.home, recursive=True)
        ]
        odd = [name for name in names if not _OF_A_RUN.fullmatch(name)]
        assert odd == ["table.json"], odd
        assert set(ledger.plans.run_ids()) == ledger.closed_runs()


@contextmanager
def starts_stand_for_processes() -> Iterator[None]:
    """Of the starts of this process all but the last one count as processes that are gone."""
    latest: list[Holder] = []
    made = Holder.this_process

    def this_process() -> Holder:
        latest.append(made())
        return latest[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Holder, "this_process", this_process)
        patch.setattr(Holder, "is_gone", lambda held: held.token != latest[-1].token)
        yield
