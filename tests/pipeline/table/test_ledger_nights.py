"""Any sequence of nights: jobs of all kinds on input that grows, killed anywhere, lose and double nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.corpus.clips import Shard
from pipeline.table.log.plans import Work
from tests.pipeline.table import outputs
from tests.pipeline.table.outputs import UNDECODABLE, UNREADABLE, A, B, Output

LOOSE = outputs.shard("x.wav", "audio")
LANGUAGES = ("en", "de")
FATES = (None, None, None, UNDECODABLE, UNREADABLE)


@dataclass(frozen=True)
class Night:
    """One start of a job, and what the world does to it."""

    shards: tuple[Shard, ...]  # those the job is told to look at
    language: str | None  # --where
    retry: bool
    limit: int | None
    killed_after: int | None  # steps
    grows: Shard | None  # before the job starts
    fates: tuple[int, ...]  # what becomes of the clips, in turn


@dataclass
class Corpus:
    """Shards of numbered clips; a clip's language is told by its number."""

    clips: dict[str, int] = field(default_factory=lambda: {A.uri: 3, B.uri: 2, LOOSE.uri: 1})
    versions: dict[str, int] = field(default_factory=dict)
    read: dict[str, str] = field(default_factory=dict)  # of which version a clip's row is

    def grow(self, shard: Shard) -> None:
        self.clips[shard.uri] += 2 if shard.format == "tar" else 0
        self.versions[shard.uri] = self.versions.get(shard.uri, 0) + 1

    def now(self, shard: Shard) -> Shard:
        return replace(shard, version=str(self.versions.get(shard.uri, 0)))

    def ids(self, shard: Shard, language: str | None) -> list[str]:
        numbers = range(self.clips[shard.uri])
        return [f"{shard.name}#{n}" for n in numbers if language in (None, LANGUAGES[n % 2])]


nights = st.builds(
    Night,
    shards=st.sampled_from([(A, B, LOOSE), (A, B), (A,), (B, LOOSE)]),
    language=st.sampled_from([None, None, *LANGUAGES]),
    retry=st.booleans(),
    limit=st.sampled_from([None, None, 1, 3]),
    killed_after=st.none() | st.integers(0, 9),
    grows=st.none() | st.sampled_from([A, B, LOOSE]),
    fates=st.lists(st.integers(0, len(FATES) - 1), min_size=7, max_size=7).map(tuple),
)


def job(table: Output, corpus: Corpus, work: Work, night: Night, limit: int | None) -> Iterator[None]:
    """Each step of a run; between any two of them it may be killed."""
    table.ledger.begin(work)
    yield
    table.start(work)
    yield
    room = limit if limit is not None else 10**6
    part = 100 * int(work.run_id.removeprefix("run"), 36) + len(table.data_files())
    for shard in work.shards:
        done = set(work.done[shard.uri].to_pylist()) if shard.uri in work.done else set()
        clips = matched = 0
        for key in range(corpus.clips[shard.uri]):
            identity = f"{shard.name}#{key}"
            fate = FATES[night.fates[key % 7]]
            # What could not be read has no language, and passes.
            if fate is not UNREADABLE and night.language not in (None, LANGUAGES[key % 2]):
                continue
            clips += 1
            matched += identity in done
            if identity in done or room == 0:
                continue
            part, room = part + 1, room - 1
            languages = {} if fate is UNREADABLE else {key: LANGUAGES[key % 2]}
            errors = {key: fate} if fate else {}
            table.write(work.run_id, [(shard, key)], errors=errors, languages=languages, part=part)
            corpus.read[identity] = shard.version
            yield
        if shard.format != "audio":
            table.count(work.run_id, shard, clips, matched=matched)
            yield
    table.ledger.finish(work.run_id, {}, to_the_end=limit is None)


def run(table: Output, corpus: Corpus, night: Night, number: int) -> bool:
    """One night; False where it was killed."""
    where = f"language = '{night.language}'" if night.language else None
    limit = None if night.retry else night.limit
    # Loose files have no language: under a condition they are no part of the work (see `without_unasked`).
    asked = [shard for shard in night.shards if where is None or shard.format != "audio"]
    shards = [corpus.now(shard) for shard in asked]
    run_id = f"run{number:02}"
    work = table.plan(*shards, run_id=run_id, where=where, retry=night.retry, limit=limit is not None)
    if (
        work.continued and limit is not None
    ):  # the rows of a killed run count as of the version that it goes on with
        corpus.read |= {
            identity: shard.version for shard in work.shards for identity in corpus.ids(shard, None)
        }
    for closed in work.interrupted:
        table.ledger.finish(closed, {}, to_the_end=False)
    if not work.shards:
        return True
    for step, _ in enumerate(job(table, corpus, work, night, limit)):
        if step == night.killed_after:
            return False
    rows = table.rows()
    if limit is None:
        work = table.plan(*shards, where=where)
        assert {shard.uri for shard in work.shards} == work.failed.keys()
        again = {identity for ids in work.failed.values() for identity in ids.to_pylist()}
        assert {rows[identity] for identity in again} <= {UNREADABLE["code"]}
        for shard in shards:
            ids = set(corpus.ids(shard, night.language))
            assert ids <= rows.keys()
            assert {corpus.read[identity] for identity in ids if rows[identity]} <= {shard.version}
    return True


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(nights, min_size=1, max_size=7))
def test_every_clip_exactly_once_whatever_happens(sequence: list[Night]) -> None:
    # In memory: thousands of records would wait for the disk, each by itself.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        table, corpus = Output(Path(folder) / "out"), Corpus()
        for number, night in enumerate(sequence):
            if night.grows:
                corpus.grow(night.grows)
            run(table, corpus, night, number)
            table.ledger.open()
            table.rows()  # no clip twice, at any time
            files = {str(path) for path in table.folder.glob("*.parquet")}
            assert files == set(table.data_files())
        last = Night((A, B, LOOSE), None, False, None, None, None, (0,) * 7)
        assert run(table, corpus, last, len(sequence))
        everything = {identity for shard in last.shards for identity in corpus.ids(shard, None)}
        assert table.rows().keys() == everything
        assert table.plan(*map(corpus.now, last.shards)).shards == []
        table.release()
