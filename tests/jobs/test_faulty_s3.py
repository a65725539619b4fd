"""A table on storage that fails: whatever becomes of requests, no clip is lost and none is doubled."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.corpus.parts import read_parts, split
from pipeline.errors import JobError
from pipeline.storage import Storage, StorageError
from pipeline.table.scan import Changes
from tests.jobs.faults import Fault, Faults, Proxy, clients
from tests.jobs.starts import Job, corpus, look, starts_stand_for_processes, storage_at


def job_on(moto_s3: Any, proxy: Proxy, name: str) -> Job:
    shards = corpus("a", "b", undelivered=True)
    return Job(moto_s3.uri(name), storage_at(proxy), storage_at(moto_s3), shards)


def nights(job: Job) -> Iterator[None]:
    """A job, another one when clips are delivered and a shard has come, and one with --retry-errors."""
    yield
    job.shards = corpus("a", "b", "c")
    yield
    job.retry_errors = True
    job.shards = {name: dict.fromkeys(clips) for name, clips in job.shards.items()}
    yield


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_starts_that_storage_fails_lose_and_double_nothing(moto_s3: Any, proxy: Proxy, seed: int) -> None:
    """Each request is tried once, so that every fault reaches the table, from some moment of a start on."""
    rng, done, sound = random.Random(seed), Counter[str](), set[str]()
    job = job_on(moto_s3, proxy, f"failing-{seed}")
    with clients(attempts=1), starts_stand_for_processes():
        for _ in nights(job):
            for expires in (False, True, False):
                rate, spares = 0.0 if expires else 0.2, rng.randrange(180)
                proxy.faults = Faults(rate, rng.random(), spares, expires=expires)
                with suppress(StorageError, JobError):
                    job.start()
                held = job.held()
                assert sound <= held.keys()
                sound = {key for key, error in held.items() if error is None}
                done += proxy.faults.done
            proxy.faults = Faults()
            job.start()
        job.start()  # closes what the last one had no reason to look at
    job.assert_whole()
    assert len(done) > 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "faults",
    [
        Faults(0.05),
        Faults(0.2),
        Faults(1.0, once=True, kinds=(Fault.LOST,)),  # what was done is found done, and is ours
        Faults(1.0, once=True, kinds=(Fault.INSIDE,)),
    ],
    ids=["5 %", "20 %", "each answer lost once", "each upload joined at the second try"],
)
def test_clients_that_try_again_hide_faults(moto_s3: Any, proxy: Proxy, faults: Faults) -> None:
    job = job_on(moto_s3, proxy, f"faulty-{faults.rate}-{len(faults.kinds)}-{faults.kinds[0].name}")
    proxy.faults = faults
    with clients(attempts=8), starts_stand_for_processes():
        for _ in nights(job):
            job.start()
    assert faults.done.total() - faults.done["requests"] > 10
    job.assert_whole()


@pytest.mark.slow
def test_clients_that_wait_no_longer(moto_s3: Any, proxy: Proxy) -> None:
    """What they gave up has happened all the same, some of it later than the next request."""
    job = job_on(moto_s3, proxy, "late")
    proxy.faults = Faults(0.03, once=True, kinds=(Fault.STALL,), stall_s=2.0)
    with clients(attempts=8, read_timeout_s=1.0), starts_stand_for_processes():
        job.start()
    assert proxy.faults.done["STALL"] > 1
    assert job.held().keys() == {key for clips in job.shards.values() for key in clips}


def test_what_storage_does_not_say_is_not_nothing(moto_s3: Any, proxy: Proxy) -> None:
    storage = storage_at(proxy)
    storage.write_bytes(moto_s3.uri("place/x"), b"x")
    proxy.faults = Faults(expires=True)
    with clients(attempts=1):
        for place in (moto_s3.uri("place/x"), moto_s3.uri("place"), moto_s3.uri("none"), "s3://corpora"):
            for ask in (storage.exists, storage.is_file, storage.is_dir, storage.list_files):
                with pytest.raises(StorageError, match="is forbidden"):
                    ask(place)


@pytest.mark.slow
def test_a_file_that_another_created_is_not_ours(moto_s3: Any, proxy: Proxy) -> None:
    storage, place = storage_at(proxy), moto_s3.uri("place/lock")
    proxy.faults = Faults(1.0, once=True, kinds=(Fault.LOST,))
    with clients(attempts=3):
        assert [storage.create(place, data) for data in (b"ours", b"another's", b"ours")] == [
            True,
            False,
            True,
        ]
    assert storage.read_bytes(place) == b"ours"


def test_where_many_files_are_removed_each_is(moto_s3: Any, proxy: Proxy) -> None:
    storage, place = storage_at(proxy), moto_s3.uri("many")
    for number in range(5):
        storage.write_bytes(f"{place}/{number}", b"")
    proxy.faults = Faults(1.0, once=True, kinds=(Fault.INSIDE,))
    storage.remove(place, recursive=True)
    assert storage.list_files(place) == []


# Input


def clips_of(changes: Changes, storage: Storage) -> dict[str, dict[str, Any]]:
    found = {}
    for shard in changes.shards:
        for part in split(shard, storage):
            for table in read_parts([part], storage, changes.passthrough):
                for row in table.to_pylist():
                    assert row["clip_id"] not in found
                    found[row["clip_id"]] = row
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.slow
def test_a_shard_cut_short_on_its_way_is_not_a_damaged_one(
    moto_s3: Any, proxy: Proxy, demo_in_bucket: str, seed: int, tmp_path: Path
) -> None:
    direct, proxied = storage_at(moto_s3), storage_at(proxy)
    changes = look([demo_in_bucket], direct, tmp_path)
    expected = clips_of(changes, direct)
    assert len(expected) == 30
    proxy.faults = Faults(0.2, seed)
    with clients(attempts=8):
        assert clips_of(changes, proxied) == expected
    proxy.faults = Faults(0.5, seed, kinds=(Fault.CUT,))
    with clients(attempts=1):
        found = clips_of(changes, proxied)
    failed = [row["error"]["code"] for key, row in found.items() if row != expected.get(key)]
    assert failed
    assert set(failed) <= {"unreadable", "undelivered"}


@pytest.mark.slow
def test_columns_are_not_those_of_half_an_input(
    moto_s3: Any, proxy: Proxy, demo_in_bucket: str, tmp_path: Path
) -> None:
    """The first job on a table fixes them: what cannot be looked at stops it."""
    shards = [f"{demo_in_bucket}/{folder}" for folder in ("webdataset", "parquet", "manifest")]
    proxy.faults = Faults(within="/corpora/demo")
    with clients(attempts=1):
        expected = look(shards, storage_at(proxy), tmp_path)
        requests = proxy.faults.done["requests"]
        assert requests > 10
        for spares in range(requests):
            proxy.faults = Faults(spares=spares, expires=True, within="/corpora/demo")
            with pytest.raises(JobError, match="is forbidden"):
                look(shards, storage_at(proxy), tmp_path)
    assert {"speaker", "ref_text"} <= set(expected.passthrough.schema.names)
