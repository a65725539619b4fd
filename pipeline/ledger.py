"""What an output already holds. The output is the ledger: its rows say which clips are done.

Beside the Parquet files, under `_run/`:

    table.json                 model digest, settings and carried columns that every run of this output shares
    shards/<run id>.jsonl      the shards that a run set out to read, written before it reads one
    census/<run id>/*.json     clips of each shard, written by the read task that came to its end
    commit/<run id>/           Ray Data's two-phase commit of the run's files
    <run id>.json              the run's summary; it exists when the run is complete

A run is logical: a killed one is continued under its id.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import JobError
from pipeline.shards import Format, Shard
from pipeline.storage import Storage, join, path_of


@dataclass(frozen=True)
class Work:
    """What is left to do: shards to read, and of those the clips that are done already."""

    run_id: str
    continued: bool
    shards: list[Shard]
    done: Mapping[str, pa.Array]
    skipped: int
    unclosed: Sequence[str] = ()  # runs killed after their last row, before their summary

    @property
    def clips_done(self) -> int:
        return sum(len(ids) for ids in self.done.values())


class Ledger:
    """The `_run/` folder of one output."""

    def __init__(self, output: str, storage: Storage) -> None:
        self.output, self.storage = output, storage
        self.home = join(output, "_run")

    # What every run of this output shares

    def table(self) -> dict[str, Any] | None:
        """The table's identity, or None where nothing was ever written."""
        uri = join(self.home, "table.json")
        if not self.storage.exists(uri):
            return None
        found: dict[str, Any] = json.loads(self.storage.read_bytes(uri))
        return found

    def declare(self, identity: Mapping[str, Any]) -> None:
        self._write_json(join(self.home, "table.json"), identity)

    def require(self, identity: Mapping[str, Any]) -> None:
        """Refuses to mix results of another model or other settings into this output."""
        held = self.table()
        if held is None:
            if strangers := self.data_files():
                raise JobError(
                    f"--output {self.output} holds Parquet files of another origin ({strangers[0]}); "
                    "choose another output, or --overwrite to delete it."
                )
            return
        differences = [
            f"{name}: it was {held.get(name)!r}, now {value!r}"
            for name, value in identity.items()
            if held.get(name) != value
        ]
        if differences:
            raise JobError(
                f"--output {self.output} was made with another model or other settings:\n"
                + "\n".join(differences)
                + "\nWrite to another output, or --overwrite to delete this one and start anew."
            )

    def clear(self) -> None:
        """Deletes the output, if it is one of ours or a table at all."""
        files = self.storage.list_files(self.output, recursive=True)
        ours = self.table() is not None
        strange = [uri for uri in files if not uri.endswith(".parquet") and "/_run/" not in uri]
        if strange and not ours:
            raise JobError(
                f"--overwrite would delete {self.output}, which holds files that no run of this wrote "
                f"({strange[0]}); delete it by hand or choose another output."
            )
        # Only what a run writes: Parquet files in folders below are somebody else's.
        for uri in [*self.data_files(), *self.storage.list_files(self.home, recursive=True)]:
            self.storage.remove(uri)

    # What is done

    def data_files(self) -> list[str]:
        return [uri for uri in self.storage.list_files(self.output) if uri.endswith(".parquet")]

    def data_files_of(self, run_id: str) -> list[str]:
        return [uri for uri in self.data_files() if uri.rsplit("/", 1)[-1].startswith(run_id)]

    def known_names(self) -> dict[str, str]:
        """uri -> name of every shard that any run set out to read."""
        return {shard.uri: shard.name for _, shards in self._plans() for shard in shards}

    def plan(self, shards: list[Shard], new_run_id: str) -> Work:
        """Compares the input with what the output holds, and says what is left to do."""
        complete: dict[str, str] = {}
        touched: set[str] = set()
        unfinished: dict[str, set[str]] = {}
        rows: Counter[str] | None = None
        for run_id, planned in self._plans():
            touched |= {shard.uri for shard in planned}
            if self.storage.exists(self.summary_uri(run_id)):
                complete |= {shard.uri: shard.version for shard in planned}
                continue
            self._remove_uncommitted(run_id)
            rows = rows if rows is not None else self._rows_by_shard()
            clips = self._census(run_id, planned)
            unfinished[run_id] = set()
            for shard in planned:
                expected = 1 if shard.format is Format.AUDIO else clips.get(shard.uri)
                if expected is not None and rows[shard.uri] >= expected:
                    complete[shard.uri] = shard.version
                else:
                    unfinished[run_id].add(shard.uri)
        todo = [shard for shard in shards if complete.get(shard.uri) != shard.version]
        wanted = {shard.uri for shard in todo}
        # A killed run goes on if this one reads all that it still had to read.
        continued = [run_id for run_id, missing in unfinished.items() if missing and missing <= wanted]
        return Work(
            run_id=continued[-1] if continued else new_run_id,
            continued=bool(continued),
            shards=todo,
            done=self._ids_of(wanted & touched),
            skipped=len(shards) - len(todo),
            unclosed=[run_id for run_id, missing in unfinished.items() if not missing],
        )

    # How a run goes on

    def begin(self, work: Work) -> None:
        """Writes down what the run sets out to read; a continued run adds to what it wrote before."""
        uri = join(self.home, "shards", f"{work.run_id}.jsonl")
        earlier = next((shards for run_id, shards in self._plans() if run_id == work.run_id), [])
        planned = {shard.uri: shard for shard in [*earlier, *work.shards]}
        lines = (json.dumps(asdict(shard)) for shard in planned.values())
        self.storage.write_bytes(uri, ("\n".join(lines) + "\n").encode())

    def census_uri(self, run_id: str) -> str:
        return join(self.home, "census", run_id)

    def commit_uri(self, run_id: str) -> str:
        return join(self.home, "commit", run_id)

    def summary_uri(self, run_id: str) -> str:
        return join(self.home, f"{run_id}.json")

    def finish(self, run_id: str, summary: Mapping[str, Any]) -> None:
        """The run is complete: its summary says so, and what only a restart needs may go."""
        self._remove_uncommitted(run_id)
        self._write_json(self.summary_uri(run_id), summary)
        for uri in (self.commit_uri(run_id), self.census_uri(run_id)):
            self.storage.remove(uri, recursive=True)

    def _remove_uncommitted(self, run_id: str) -> None:
        """Deletes data files without a committed checkpoint: a killed writer's, whenever it wrote them."""
        committed = {
            uri.rsplit("/", 1)[-1].removesuffix(".parquet")
            for uri in self.storage.list_files(self.commit_uri(run_id))
            if not uri.endswith(".pending.parquet")
        }
        for uri in self.data_files_of(run_id):
            # Ray names them <task>-<part>.parquet after the checkpoint <task>.parquet.
            if uri.rsplit("/", 1)[-1].rsplit("-", 1)[0] not in committed:
                self.storage.remove(uri)

    def _plans(self) -> list[tuple[str, list[Shard]]]:
        plans = []
        for uri in self.storage.list_files(join(self.home, "shards")):
            lines = self.storage.read_bytes(uri).decode().splitlines()
            records = [json.loads(line) for line in lines]
            shards = [Shard(**{**record, "format": Format(record["format"])}) for record in records]
            plans.append((uri.rsplit("/", 1)[-1].removesuffix(".jsonl"), shards))
        return plans

    def _census(self, run_id: str, planned: Iterable[Shard]) -> dict[str, int]:
        """Rows that each shard has in the table once it is done, of shards read to their end."""
        versions = {shard.uri: shard.version for shard in planned}
        clips: Counter[str] = Counter()
        done: Counter[str] = Counter()
        parts: dict[str, int] = {}
        totals: dict[str, int] = {}
        for uri in self.storage.list_files(self.census_uri(run_id)):
            record = json.loads(self.storage.read_bytes(uri))
            if record["version"] != versions.get(record["shard"]):
                continue  # the shard changed after it was counted
            clips[record["shard"]] += record["clips"] - record["matched"]
            done[record["shard"]] = max(done[record["shard"]], record["done"])
            parts[record["shard"]] = parts.get(record["shard"], 0) + 1
            totals[record["shard"]] = record["of_parts"]
        return {shard: clips[shard] + done[shard] for shard in parts if parts[shard] == totals[shard]}

    def _rows_by_shard(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for uri in self.data_files():
            for batch in self._columns(uri, ["shard"]):
                for entry in batch.column(0).value_counts().to_pylist():
                    counts[entry["values"]] += entry["counts"]
        return counts

    def _ids_of(self, shards: Iterable[str]) -> dict[str, pa.Array]:
        wanted = pa.array(sorted(shards), pa.string())
        ids: dict[str, list[pa.Array]] = {}
        if not len(wanted):
            return {}
        for uri in self.data_files():
            for batch in self._columns(uri, ["shard", "clip_id"]):
                table = pa.Table.from_batches([batch])
                table = table.filter(pc.is_in(table["shard"], value_set=wanted))
                for shard in table["shard"].unique().to_pylist():
                    mine = table.filter(pc.equal(table["shard"], shard))["clip_id"]
                    ids.setdefault(shard, []).append(mine.combine_chunks())
        return {shard: pa.concat_arrays(parts) for shard, parts in ids.items()}

    def _columns(self, uri: str, columns: list[str]) -> Iterable[pa.RecordBatch]:
        file = pq.ParquetFile(path_of(uri), filesystem=self.storage.arrow_filesystem(uri))
        with file:
            yield from file.iter_batches(columns=columns)

    def _write_json(self, uri: str, value: Mapping[str, Any]) -> None:
        self.storage.write_bytes(uri, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_census(
    storage: Storage,
    home: str,
    shard: Shard,
    part: int,
    of_parts: int,
    clips: int,
    matched: int = 0,
    done: int = 0,
) -> None:
    """Says how many clips a part of a shard holds, once it was read to its end.

    `done` clips of the shard had rows before, `matched` of them are in this part: the others are gone from
    the shard, but their rows are still in the table.
    """
    name = hashlib.sha256(f"{shard.uri}#{part}".encode()).hexdigest()[:32]
    record = {
        "shard": shard.uri,
        "version": shard.version,
        "part": part,
        "of_parts": of_parts,
        "clips": clips,
        "matched": matched,
        "done": done,
    }
    storage.write_bytes(join(home, f"{name}.json"), json.dumps(record).encode())
