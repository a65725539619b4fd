"""An output as runs leave it behind, written by hand, for the tests of the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.corpus.clips import Shard
from pipeline.corpus.condition import Where
from pipeline.corpus.lanes import Lane
from pipeline.corpus.parts import Part
from pipeline.corpus.readers import READERS
from pipeline.schema import ERROR
from pipeline.storage import Storage, StorageOptions
from pipeline.table.ledger import Ledger
from pipeline.table.log.plans import Work
from pipeline.table.log.records import file_name
from pipeline.table.log.writer import write_file
from pipeline.table.retry import drop_rows, failed_clips

STORAGE = Storage(StorageOptions())
PASSTHROUGH = pa.schema([("language", pa.string())])
SCHEMA = pa.schema(
    [("clip_id", pa.string()), ("shard", pa.string()), ("error", ERROR), *PASSTHROUGH],
    metadata={"w2vbert.run_id": "as it was"},
)
UNDECODABLE = {"stage": "decode", "code": "undecodable", "message": "noise"}
UNREADABLE = {"stage": "read", "code": "unreadable", "message": "gone"}


def shard(name: str, kind: str = "tar", version: str = "1") -> Shard:
    return Shard(f"/corpus/{name}", name, kind, 1000, version)


A, B, C = shard("a.tar"), shard("b.tar"), shard("c.tar")


class Output:
    """The folder of one output, its ledger (locked), and short ways to say what runs did."""

    def __init__(self, folder: Path, lane: Lane | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ledger = Ledger(str(folder), STORAGE, lane)
        self._lock = ExitStack()
        self._lock.enter_context(self.ledger.locked())

    def release(self) -> None:
        self._lock.close()

    def begin(self, run_id: str, *shards: Shard, where: str | None = None) -> None:
        self.ledger.begin(Work(run_id, False, list(shards), {}, 0, where=where))

    def write(
        self,
        run_id: str,
        rows: Iterable[tuple[Shard, int | str]],
        *,
        errors: Mapping[int | str, dict[str, str]] | None = None,
        languages: Mapping[int | str, str] | None = None,
        part: int = 0,
        commit: bool = True,
    ) -> Path:
        """Clips `<shard>#<key>` in one file in groups of two, as a write task does, or was killed doing."""
        records = [
            {
                "clip_id": f"{shard.name}#{key}",
                "shard": shard.uri,
                "error": (errors or {}).get(key),
                "language": (languages or {}).get(key),
            }
            for shard, key in rows
        ]
        log, task = self.ledger.records, f"0-{part:06}"
        file = file_name(run_id, task, "x")
        note = log.intend(run_id, [file])
        groups = [
            pa.Table.from_pylist(records[start : start + 2], schema=SCHEMA)
            for start in range(0, len(records), 2)
        ]
        record = write_file(log, file, groups, SCHEMA, run_id)
        if commit and record is not None:
            log.commit(run_id, task, [record])
            log.forget(note)
        return self.folder / file

    def count(
        self, run_id: str, shard: Shard, clips: int, *, part: int = 0, of_parts: int = 1, matched: int = 0
    ) -> None:
        counted = Part(shard, READERS[shard.format], number=part, of_parts=of_parts)
        self.ledger.shard_counter(run_id)(counted, clips, matched)

    def finished(self, run_id: str, *shards: Shard, clips: int = 2, where: str | None = None) -> None:
        """A run that read these shards to their end and wrote so many clips of each."""
        self.begin(run_id, *shards, where=where)
        self.write(run_id, [(shard, number) for shard in shards for number in range(clips)])
        self.ledger.finish(run_id, {"run_id": run_id})

    def plan(
        self,
        *shards: Shard,
        run_id: str = "run9",
        where: str | None = None,
        retry: bool = False,
        limit: bool = False,
    ) -> Work:
        """What a job on these shards would do, as `pipeline.table.scan` asks it."""
        self.ledger.open()
        condition = Where(where, PASSTHROUGH) if where else None
        failed = {} if limit else failed_clips(self.ledger, shards, condition, undelivered=not retry)
        return self.ledger.plan(list(shards), run_id, where=where, failed=failed)

    def start(self, work: Work) -> Work:
        """Up to where reading begins."""
        self.ledger.begin(work)
        drop_rows(self.ledger, work.failed)
        return work

    def data_files(self) -> list[str]:
        return [self.ledger.uri_of(record) for record in self.ledger.files()]

    def rows(self) -> dict[str, Any]:
        """clip_id -> error code; an id that has two rows fails."""
        found: dict[str, Any] = {}
        for uri in self.data_files():
            for row in pq.ParquetFile(uri).read().to_pylist():
                assert row["clip_id"] not in found
                found[row["clip_id"]] = row["error"] and row["error"]["code"]
        return dict(sorted(found.items()))


def ids_done(work: Work) -> dict[str, list[str]]:
    return {uri: sorted(ids.to_pylist()) for uri, ids in work.done.items()}


def left(work: Work) -> list[tuple[str, list[str]]]:
    """The shards to read, each with the ids of the clips that are left out of it."""
    return [(shard.name, ids_done(work).get(shard.uri, [])) for shard in work.shards]
