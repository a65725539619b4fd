"""What an output already holds. The output is the ledger: its rows say which clips are done.

Beside the Parquet files, under `_run/`:

    table.json                 model digest, settings and carried columns that every run of this output shares
    shards/<run id>.jsonl      the shards that a run set out to read, written before it reads one
    census/<run id>/*.json     clips of each shard, written by the read task that came to its end
    commit/<run id>/           Ray Data's two-phase commit of the run's files
    <run id>.json              the run's summary; it exists when the run is over

A run is logical: a killed one is continued under its id.

A shard read to its end is complete: under a condition (`--where`) for runs with the same one, without one for
all. Runs count in the order of their ids: one that annotates errors anew takes back what earlier ones
completed, until it has read the shard to its end itself.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.corpus.clips import Shard
from pipeline.corpus.readers import READERS
from pipeline.errors import JobError
from pipeline.storage import Storage, join, path_of


@dataclass(frozen=True)
class Work:
    """What is left to do: shards to read, and of those the clips that are done already.

    Attributes:
        done: by shard, ids of the clips that have rows and keep them.
        own: by shard, how many of these rows the run itself wrote before it was killed.
        failed: by shard, ids of the clips whose error rows go, so that they are annotated anew.
        unclosed: runs that were killed, and of which nothing is left to do.
    """

    run_id: str
    continued: bool
    shards: list[Shard]
    done: Mapping[str, pa.Array]
    skipped: int
    unclosed: Sequence[str] = ()
    own: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, pa.Array] = field(default_factory=dict)
    where: str | None = None

    @property
    def clips_done(self) -> int:
        return sum(len(ids) for ids in self.done.values())

    @property
    def clips_failed(self) -> int:
        return sum(len(ids) for ids in self.failed.values())


@dataclass(frozen=True)
class _Planned:
    """A shard that a run set out to read: one line of its plan.

    `finished` counts once the run is over; until then census and rows tell.
    """

    shard: Shard
    where: str | None = None
    retry: bool = False
    finished: bool = True

    @classmethod
    def from_json(cls, line: str) -> _Planned:
        record: dict[str, Any] = json.loads(line)
        own = {each.name for each in fields(Shard)}
        shard = {name: value for name, value in record.items() if name in own}
        return cls(
            Shard(**shard),
            **{name: value for name, value in record.items() if name not in own},
        )

    def to_json(self) -> str:
        settings = {"where": self.where, "retry": self.retry, "finished": self.finished}
        return json.dumps(asdict(self.shard) | settings)


@dataclass
class _Complete:
    """What is known to be read to its end: a shard's version, and under which conditions."""

    version: str
    conditions: set[str | None]

    def holds(self, version: str, where: str | None) -> bool:
        return self.version == version and not self.conditions.isdisjoint({None, where})


_Plans = list[tuple[str, list[_Planned]]]


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

    def tasks(self) -> list[str]:
        """The annotations that the table has; none where nothing was ever written."""
        return list((self.table() or {}).get("models", {}))

    def declare(self, identity: Mapping[str, Any]) -> None:
        self._write_json(join(self.home, "table.json"), identity)

    def require(self, identity: Mapping[str, Any], tasks: Iterable[str]) -> None:
        """Refuses to mix results of other annotations, another model or other settings into this output.

        Args:
            identity: digests of the models, if known, and settings, by name.
            tasks: the annotations to write.
        """
        held = self.table()
        if held is None:
            if strangers := self.data_files():
                raise JobError(
                    f"--output {self.output} holds Parquet files of another origin ({strangers[0]}); "
                    "choose another output, or --overwrite to delete it."
                )
            return
        remedy = "Write to another output, or --overwrite to delete this one and start anew."
        asked, there = sorted(tasks), sorted(held["models"])
        if asked != there:
            raise JobError(
                f"--output {self.output} holds {', '.join(there)}; this job would write {', '.join(asked)}, "
                f"and all files of a table have the same columns.\n{remedy}"
            )
        before, now = _by_setting(held), _by_setting(identity)
        differences = [
            f"{name}: it was {before.get(name)!r}, now {value!r}"
            for name, value in now.items()
            if before.get(name) != value
        ]
        if differences:
            raise JobError(
                f"--output {self.output} was made with another model or other settings:\n"
                + "\n".join(differences)
                + f"\n{remedy}"
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
        return {line.shard.uri: line.shard.name for _, planned in self._plans() for line in planned}

    def sweep(self) -> None:
        """Deletes what killed writers left: data files that were never committed."""
        closed = self._closed()
        for run_id, _ in self._plans():
            if run_id not in closed:
                self._remove_uncommitted(run_id)

    def plan(
        self,
        shards: list[Shard],
        new_run_id: str,
        *,
        where: str | None = None,
        failed: Mapping[str, pa.Array] | None = None,
    ) -> Work:
        """Compares the input with what the output holds, and says what is left to do; changes nothing.

        Args:
            where: the condition that clips must meet.
            failed: by shard, ids of the clips to annotate anew.
        """
        failed = failed or {}
        plans = self._plans()
        complete, unfinished = self._progress(plans)

        def is_complete(uri: str, version: str, where: str | None) -> bool:
            return uri in complete and complete[uri].holds(version, where)

        todo = [
            shard
            for shard in shards
            if shard.uri in failed or not is_complete(shard.uri, shard.version, where)
        ]
        versions = {line.shard.uri: line.shard.version for lines in unfinished.values() for line in lines}
        versions |= {shard.uri: shard.version for shard in shards}
        missing = {
            run_id: [
                line
                for line in lines
                if not is_complete(line.shard.uri, versions[line.shard.uri], line.where)
            ]
            for run_id, lines in unfinished.items()
        }
        wanted = {shard.uri for shard in todo}
        continued = None if failed else _continued(plans, missing, wanted, where)
        touched = {line.shard.uri for _, planned in plans for line in planned}
        return Work(
            run_id=continued or new_run_id,
            continued=continued is not None,
            shards=todo,
            done=_without(self._ids_of(wanted & touched), failed),
            skipped=len(shards) - len(todo),
            unclosed=[run_id for run_id, lines in missing.items() if not lines],
            own=self._rows_by_shard(self.data_files_of(continued)) if continued else {},
            failed=failed,
            where=where,
        )

    def _progress(self, plans: _Plans) -> tuple[dict[str, _Complete], dict[str, list[_Planned]]]:
        """By shard what is complete, and by run without a summary what it did not read to its end."""
        complete: dict[str, _Complete] = {}
        unfinished: dict[str, list[_Planned]] = {}
        closed = self._closed()
        for run_id, planned in plans:
            if run_id in closed:
                finished = {line.shard.uri for line in planned if line.finished}
            else:
                finished = self._read_to_their_end(run_id, planned)
                unfinished[run_id] = [line for line in planned if line.shard.uri not in finished]
            for line in planned:
                uri, version = line.shard.uri, line.shard.version
                if line.retry:
                    complete.pop(uri, None)
                if uri in finished:
                    held = complete.get(uri)
                    if held is not None and held.version == version:
                        held.conditions.add(line.where)
                    else:
                        complete[uri] = _Complete(version, {line.where})
        return complete, unfinished

    # How a run goes on

    def begin(self, work: Work) -> None:
        """Writes down what the run sets out to read; a continued run adds to what it wrote before."""
        earlier = next((planned for run_id, planned in self._plans() if run_id == work.run_id), [])
        now = [_Planned(shard, work.where, retry=shard.uri in work.failed) for shard in work.shards]
        self._write_plan(work.run_id, {line.shard.uri: line for line in [*earlier, *now]}.values())

    def census_uri(self, run_id: str) -> str:
        return join(self.home, "census", run_id)

    def commit_uri(self, run_id: str) -> str:
        return join(self.home, "commit", run_id)

    def summary_uri(self, run_id: str) -> str:
        return join(self.home, f"{run_id}.json")

    def finish(self, run_id: str, summary: Mapping[str, Any], *, to_the_end: bool = True) -> None:
        """The run is over: its summary says so, and what only a restart needs may go.

        Args:
            to_the_end: every shard was read to its end; else (`--limit`, a kill) census and rows tell which.
        """
        self._remove_uncommitted(run_id)
        if not to_the_end:
            planned = next((planned for name, planned in self._plans() if name == run_id), [])
            finished = self._read_to_their_end(run_id, planned)
            self._write_plan(run_id, (replace(line, finished=line.shard.uri in finished) for line in planned))
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

    def _plans(self) -> _Plans:
        """What each run set out to read, in the order of the runs."""
        plans = []
        for uri in self.storage.list_files(join(self.home, "shards")):
            lines = self.storage.read_bytes(uri).decode().splitlines()
            run_id = uri.rsplit("/", 1)[-1].removesuffix(".jsonl")
            plans.append((run_id, [_Planned.from_json(line) for line in lines]))
        return plans

    def _write_plan(self, run_id: str, planned: Iterable[_Planned]) -> None:
        text = "".join(f"{line.to_json()}\n" for line in planned)
        self.storage.write_bytes(join(self.home, "shards", f"{run_id}.jsonl"), text.encode())

    def _closed(self) -> set[str]:
        """Runs that have their summary."""
        names = (uri.rsplit("/", 1)[-1] for uri in self.storage.list_files(self.home))
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def _read_to_their_end(self, run_id: str, planned: Sequence[_Planned]) -> set[str]:
        """The shards of which the run wrote all that its census says was to be written."""
        shards = [line.shard for line in planned]
        loose = {shard.uri for shard in shards if READERS[shard.format].one_clip}
        rows = self._rows_by_shard(self.data_files_of(run_id))
        needed = self._census(run_id, shards) | dict.fromkeys(loose, 1)
        if elsewhere := loose - rows.keys():  # the row of a file that changed is another run's
            needed |= dict.fromkeys(elsewhere & self._rows_by_shard(self.data_files()).keys(), 0)
        return {uri for uri, count in needed.items() if rows[uri] >= count}

    def _census(self, run_id: str, planned: Iterable[Shard]) -> dict[str, int]:
        """Rows that the run has of each shard once it is done, of shards read to their end."""
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

    def _rows_by_shard(self, files: Iterable[str]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for uri in files:
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


def _by_setting(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity, each model with an entry of its own."""
    models = {f"model of {task}": digest for task, digest in identity.get("models", {}).items()}
    return {**{name: value for name, value in identity.items() if name != "models"}, **models}


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
    """Says how many clips a part of a shard holds that were asked for, once it was read to its end.

    `matched` of them had rows before. `done` rows of the shard were there from the run itself, before it was
    killed and went on; some may be of clips that are gone from the shard since.
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


def _without(ids: dict[str, pa.Array], others: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    return {
        shard: array.filter(pc.invert(pc.is_in(array, value_set=others[shard]))) if shard in others else array
        for shard, array in ids.items()
    }


def _continued(
    plans: _Plans, missing: Mapping[str, list[_Planned]], wanted: set[str], where: str | None
) -> str | None:
    """The killed run that goes on: a job under its condition does all that it still had to do.

    Runs count in the order of their ids, so none goes on that a later run shares a shard with.
    """
    later: set[str] = set()
    for run_id, planned in reversed(plans):
        uris = {line.shard.uri for line in planned}
        lines = missing.get(run_id)
        if (
            lines
            and wanted.issuperset(line.shard.uri for line in lines)
            and all(line.where == where and not line.retry for line in planned)
            and later.isdisjoint(uris | wanted)
        ):
            return run_id
        later |= uris
    return None
