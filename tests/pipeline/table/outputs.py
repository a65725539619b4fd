"""An output as runs leave it behind, written by hand, for the tests of the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.corpus.clips import Shard
from pipeline.corpus.condition import Where
from pipeline.storage import Storage, StorageOptions
from pipeline.table.ledger import Ledger, Work, write_census
from pipeline.table.retry import drop_rows, failed_clips
from pipeline.schema import ERROR

STORAGE = Storage(StorageOptions())
CARRIED = pa.schema([("language", pa.string())])
SCHEMA = pa.schema(
    [("clip_id", pa.string()), ("shard", pa.string()), ("error", ERROR), *CARRIED],
    metadata={"w2vbert.run_id": "as it was"},
)
UNDECODABLE = {"stage": "decode", "code": "undecodable", "message": "noise"}
UNREADABLE = {"stage": "read", "code": "unreadable", "message": "gone"}


def shard(name: str, kind: str = "tar", version: str = "1") -> Shard:
    return Shard(f"/corpus/{name}", name, kind, 1000, version)


A, B, C = shard("a.tar"), shard("b.tar"), shard("c.tar")


class Output:
    """The folder of one output, its ledger, and short ways to say what runs did."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger(str(folder), STORAGE)

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
        """Clips `<shard>#<key>` in one file, as Ray's two-phase commit names it."""
        self.folder.mkdir(exist_ok=True)
        file = self.folder / f"{run_id}_0_{part:06}-0.parquet"
        records = [
            {
                "clip_id": f"{shard.name}#{key}",
                "shard": shard.uri,
                "error": (errors or {}).get(key),
                "language": (languages or {}).get(key),
            }
            for shard, key in rows
        ]
        pq.write_table(pa.Table.from_pylist(records, schema=SCHEMA), file, row_group_size=2)
        checkpoint = self.folder / "_run" / "commit" / run_id
        checkpoint.mkdir(parents=True, exist_ok=True)
        ending = "parquet" if commit else "pending.parquet"
        (checkpoint / f"{run_id}_0_{part:06}.{ending}").write_bytes(b"")
        return file

    def census(
        self,
        run_id: str,
        shard: Shard,
        clips: int,
        *,
        part: int = 0,
        of_parts: int = 1,
        matched: int = 0,
        done: int = 0,
    ) -> None:
        write_census(STORAGE, self.ledger.census_uri(run_id), shard, part, of_parts, clips, matched, done)

    def finished(self, run_id: str, *shards: Shard, clips: int = 2, where: str | None = None) -> None:
        """A run that read these shards to their end and wrote so many clips of each."""
        self.begin(run_id, *shards, where=where)
        self.write(run_id, [(shard, number) for shard in shards for number in range(clips)])
        self.ledger.finish(run_id, {"run_id": run_id})

    def plan(
        self, *shards: Shard, run_id: str = "run9", where: str | None = None, retry: bool = False
    ) -> Work:
        """What a job on these shards would do, as `pipeline.table.scan` asks it."""
        self.ledger.sweep()
        condition = Where(where, CARRIED) if where else None
        failed = failed_clips(self.ledger, shards, condition) if retry else {}
        return self.ledger.plan(list(shards), run_id, where=where, failed=failed)

    def start(self, work: Work) -> Work:
        """Up to where reading begins."""
        self.ledger.begin(work)
        drop_rows(self.ledger, work.failed)
        return work

    def rows(self) -> dict[str, Any]:
        """clip_id -> error code; an id that has two rows fails."""
        found: dict[str, Any] = {}
        for uri in self.ledger.data_files():
            for row in pq.ParquetFile(uri).read().to_pylist():
                assert row["clip_id"] not in found
                found[row["clip_id"]] = row["error"] and row["error"]["code"]
        return dict(sorted(found.items()))


def ids_done(work: Work) -> dict[str, list[str]]:
    return {uri: sorted(ids.to_pylist()) for uri, ids in work.done.items()}


def left(work: Work) -> list[tuple[str, list[str]]]:
    """The shards to read, each with the ids of the clips that are left out of it."""
    return [(shard.name, ids_done(work).get(shard.uri, [])) for shard in work.shards]
