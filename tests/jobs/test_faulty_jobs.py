"""Whole jobs whose requests to storage fail: in the end each row is there once, as of a sound store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.errors import JobError
from pipeline.job import run
from pipeline.reports.summary import RunSummary
from pipeline.spec import TranscribeSpec
from pipeline.storage import StorageOptions
from tests.conftest import ROOT
from tests.jobs.faults import Faults, Proxy, proxy_before
from tests.jobs.tables import Row, assert_close, rows_at

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def proxy(moto_s3: Any) -> Iterator[Proxy]:
    with proxy_before(moto_s3.endpoint) as held:
        yield held


@pytest.fixture(scope="module")
def corpus(moto_s3: Any) -> str:
    """The demo's in the bucket."""
    folder = ROOT / "demo" / "corpus"
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        key = f"demo/{file.relative_to(folder).as_posix()}"
        moto_s3.client.upload_file(str(file), moto_s3.bucket, key)
    return moto_s3.uri("demo")


def job(corpus: str, output: str, server: Any) -> TranscribeSpec:
    return TranscribeSpec(
        input=[corpus],
        output=output,
        model=str(ROOT / "demo" / "checkpoint"),
        rows_per_file=4,
        storage=StorageOptions(endpoint_url=server.endpoint),
    )


@dataclass(frozen=True)
class Sound:
    """What a job writes where no request fails, and how often it asks for the corpus."""

    rows: dict[str, Row]
    requests: int


@pytest.fixture(scope="module")
def sound(local_ray: None, moto_s3: Any, proxy: Proxy, corpus: str) -> Sound:
    output = moto_s3.uri("sound")
    proxy.faults = Faults(within="/corpora/demo")
    assert run(job(corpus, output, proxy)).complete
    return Sound(rows_at(output), proxy.faults.done["requests"])


def assert_same(rows: dict[str, Row], expected: dict[str, Row]) -> None:
    assert rows.keys() == expected.keys()
    for clip_id, row in rows.items():
        ours, theirs = ({**each, "encoder_s": None} for each in (row, expected[clip_id]))
        assert_close(ours, theirs, clip_id)


def undelivered(row: Row) -> bool:
    """Of audio that a manifest names, an error row says that it was not delivered."""
    return row["error"] is not None and row["error"]["code"] == "unreadable"


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_a_store_that_fails_now_and_then(
    moto_s3: Any, proxy: Proxy, corpus: str, sound: Sound, rate: float
) -> None:
    output = moto_s3.uri(f"at-{rate}")
    proxy.faults = Faults(rate, seed=1)
    for _ in range(8):  # where a request failed as often as it was tried, the same command goes on
        with suppress(JobError):
            if run(job(corpus, output, proxy)).complete:
                break
    assert len(proxy.faults.done) > 5
    assert_same(rows_at(output), sound.rows)


def test_credentials_that_expire_midway(moto_s3: Any, proxy: Proxy, corpus: str, sound: Sound) -> None:
    output = moto_s3.uri("expired")

    def start() -> RunSummary:
        return run(job(corpus, output, proxy))

    proxy.faults = Faults(spares=sound.requests - 8, expires=True, within="/corpora/demo")
    summary = start()
    assert not summary.complete
    assert all("is forbidden" in reason for reason in summary.undelivered.values())
    rows = {clip_id: row for clip_id, row in rows_at(output).items() if not undelivered(row)}
    assert 0 < len(rows) < len(sound.rows)
    assert_same(rows, {clip_id: sound.rows[clip_id] for clip_id in rows})

    proxy.faults = Faults(spares=1, expires=True, within="/corpora/expired/")
    with pytest.raises(JobError, match="is forbidden"):
        start()

    proxy.faults = Faults()
    summary = start()
    assert summary.complete
    assert_same(rows_at(output), sound.rows)
    assert start().shards_read == 0
