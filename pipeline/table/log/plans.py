"""What runs set out to read, and how far they came.

shards/<run id>.jsonl          the shards that a run set out to read, written before it reads one
shard_counts/<run id>/*.json   clips of a part of a shard, written by the read task that came to its end
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import pyarrow as pa
from pydantic import ConfigDict, with_config

from pipeline import strict_json
from pipeline.corpus.clips import Shard
from pipeline.corpus.parts import Part
from pipeline.corpus.readers import READERS
from pipeline.storage import Storage, join, name_of
from pipeline.table.log.records import read_texts

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What is left to do: shards to read, and of those the clips that are done already.

    Attributes:
        done: by shard, ids of the clips that have rows and keep them.
        rows_before_kill: by shard, how many of these rows the run itself wrote before it was killed.
        failed: by shard, ids of the clips whose error rows go, so that they are annotated again.
        interrupted: runs that were killed, and of which nothing is left to do.
    """

    run_id: str
    continued: bool
    shards: list[Shard]
    done: Mapping[str, pa.Array]
    skipped: int
    interrupted: Sequence[str] = ()
    rows_before_kill: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, pa.Array] = field(default_factory=dict)
    where: str | None = None

    @property
    def clips_done(self) -> int:
        return sum(len(ids) for ids in self.done.values())

    @property
    def clips_failed(self) -> int:
        return sum(len(ids) for ids in self.failed.values())


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class PlannedShard:
    """A shard that a run set out to read: one line of its plan.

    Attributes:
        finished: counts once the run is over; until then shard counts and rows tell.
        rows_before_kill: that a continued run had written when it set out to read the shard again; some may
            be of clips that are gone from the shard since.
    """

    shard: Shard
    where: str | None = None
    retry: bool = False
    finished: bool = True
    rows_before_kill: int = 0

    @classmethod
    def from_json(cls, line: str) -> PlannedShard:
        """Raises ValueError for what is no line of a plan."""
        record = strict_json.loads(line, dict[str, Any])
        shard = {each.name: record.pop(each.name) for each in fields(Shard) if each.name in record}
        return strict_json.as_kind({**record, "shard": shard}, cls)

    def to_json(self) -> str:
        settings = asdict(replace(self, shard=replace(self.shard, beside=None)))
        shard: dict[str, Any] = settings.pop("shard")
        del shard["beside"]  # the listing of each start finds it anew
        return json.dumps(shard | settings)


@dataclass(frozen=True)
class _ShardCount:
    """What write_shard_counts says of one part of a shard."""

    shard: str
    version: str
    part: int
    of_parts: int
    clips: int
    matched: int


Plan = tuple[str, list[PlannedShard]]  # of a run


@dataclass
class Complete:
    """What is known to be read to its end: a shard's version, and under which conditions."""

    version: str
    conditions: set[str | None]

    def holds(self, version: str, where: str | None) -> bool:
        return self.version == version and not self.conditions.isdisjoint({None, where})


def write_shard_counts(storage: Storage, folder: str, part: Part, clips: int, matched: int) -> None:
    """Says how much a part of a shard holds, once it was read to its end; read again, it counts once.

    Args:
        folder: `Plans.shard_counts_uri` of the run.
        clips: that were asked for.
        matched: those of them that had rows before.
    """
    shard = part.shard
    if is_one_clip(shard):
        return
    name = hashlib.sha256(f"{shard.uri}#{part.number}".encode()).hexdigest()[:32]
    record = asdict(_ShardCount(shard.uri, shard.version, part.number, part.of_parts, clips, matched))
    # Lost, it costs a second look at the shard; and there may be a hundred thousand of them.
    storage.write_bytes(join(folder, f"{name}.json"), json.dumps(record).encode(), sync=False)


class Plans:
    """The plans of all runs of a table, and the shard counts of those that are not over."""

    def __init__(self, home: str, storage: Storage) -> None:
        self.home, self.storage = home, storage
        self._seen: dict[str, tuple[str, list[PlannedShard]]] = {}  # a start looks several times

    def run_ids(self) -> list[str]:
        """The runs that have a plan, in their order."""
        return [_run_id(uri) for uri in self._uris()]

    def all(self) -> list[Plan]:
        """What each run set out to read, in the order of the runs."""
        texts = read_texts(self._uris(), self.storage)
        return [(_run_id(uri), self._lines(uri, text)) for uri, text in texts.items()]

    def _uris(self) -> list[str]:
        listed = self.storage.list_files(join(self.home, "shards"))
        return [uri for uri in listed if uri.endswith(".jsonl")]

    def of(self, run_id: str) -> list[PlannedShard]:
        """What one run set out to read; nothing where it has no plan yet."""
        texts = read_texts([self._uri(run_id)], self.storage)
        return [line for uri, text in texts.items() for line in self._lines(uri, text)]

    def _lines(self, uri: str, text: str) -> list[PlannedShard]:
        """Parsed again only where the text has changed."""
        if self._seen.get(uri, ("", []))[0] != text:
            self._seen[uri] = text, list(_parsed(uri, text))
        return list(self._seen[uri][1]) if text else []

    def write(self, run_id: str, planned: Iterable[PlannedShard]) -> None:
        text = "".join(f"{line.to_json()}\n" for line in planned)
        self.storage.write_bytes(self._uri(run_id), text.encode())

    def _uri(self, run_id: str) -> str:
        return join(self.home, "shards", f"{run_id}.jsonl")

    def shard_counts_uri(self, run_id: str) -> str:
        return join(self.home, "shard_counts", run_id)

    def counted_runs(self) -> set[str]:
        """The runs that have shard counts."""
        listed = self.storage.list_files(join(self.home, "shard_counts"), recursive=True)
        return {uri.split("/")[-2] for uri in listed}

    def remove_shard_counts(self, run_id: str) -> None:
        self.storage.remove(self.shard_counts_uri(run_id), recursive=True)

    def read_to_their_end(
        self, run_id: str, planned: Sequence[PlannedShard], rows: Counter[str], everywhere: Iterable[str]
    ) -> set[str]:
        """The shards of which the run wrote all that its shard counts say was to be written.

        Args:
            rows: of the run, by shard.
            everywhere: the shards that have rows in the table, whoever wrote them.
        """
        loose = {line.shard.uri for line in planned if is_one_clip(line.shard)}
        needed = self._rows_needed(run_id, planned) | dict.fromkeys(loose, 1)
        # A loose file that changed keeps the row of an earlier run, and gets none from this one.
        needed |= dict.fromkeys((loose - rows.keys()) & set(everywhere), 0)
        return {uri for uri, count in needed.items() if rows[uri] >= count}

    def _rows_needed(self, run_id: str, planned: Sequence[PlannedShard]) -> dict[str, int]:
        """Rows that the run has of each shard once it is done, of shards read to their end."""
        lines = {line.shard.uri: line for line in planned}
        clips: Counter[str] = Counter()
        parts: dict[str, int] = {}
        totals: dict[str, int] = {}
        texts = read_texts(self.storage.list_files(self.shard_counts_uri(run_id)), self.storage)
        for uri, text in texts.items():
            try:
                count = strict_json.loads(text, _ShardCount)
            except ValueError:  # read again, the shard is counted again
                _LOG.warning("%s is damaged", uri)
                continue
            shard = count.shard
            if shard not in lines or count.version != lines[shard].shard.version:
                continue  # the shard changed after it was counted
            clips[shard] += count.clips - count.matched
            parts[shard] = parts.get(shard, 0) + 1
            totals[shard] = count.of_parts
        return {
            shard: clips[shard] + lines[shard].rows_before_kill
            for shard in parts
            if parts[shard] == totals[shard]
        }


def _parsed(uri: str, text: str) -> Iterator[PlannedShard]:
    """A shard whose line is damaged is one that was not read."""
    for line in text.splitlines():
        try:
            yield PlannedShard.from_json(line)
        except ValueError:
            _LOG.warning("%s: a line is damaged, and its shard read again", uri)


def _run_id(uri: str) -> str:
    """The run whose plan lies there."""
    return name_of(uri).removesuffix(".jsonl")


def complete_shards(plans: Sequence[Plan], finished: Mapping[str, set[str]]) -> dict[str, Complete]:
    """By shard what is complete, after all runs in their order; `finished` of each run."""
    complete: dict[str, Complete] = {}
    for run_id, planned in plans:
        for line in planned:
            uri, version = line.shard.uri, line.shard.version
            if line.retry:
                complete.pop(uri, None)
            if uri in finished[run_id]:
                held = complete.get(uri)
                if held is not None and held.version == version:
                    held.conditions.add(line.where)
                else:
                    complete[uri] = Complete(version, {line.where})
    return complete


def continued_run(
    plans: Sequence[Plan], missing: Mapping[str, list[PlannedShard]], wanted: set[str], where: str | None
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


def is_one_clip(shard: Shard) -> bool:
    """A loose audio file: a shard that is a clip, and needs no counting."""
    reader = READERS.get(shard.format)
    return reader is not None and reader.one_clip
