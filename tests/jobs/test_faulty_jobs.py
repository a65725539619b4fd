"""Whole jobs whose requests to storage fail: in the end each row is there once, as of a sound store."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import JobError
from pipeline.job import run
from pipeline.reports.summary import RunSummary
from pipeline.spec import TranscribeSpec
from pipeline.storage import StorageOptions
from tests.conftest import ROOT
from tests.jobs.faults import Faults, Proxy
from tests.jobs.starts import look, storage_at
from tests.jobs.tables import Row, assert_close, rows_at, rows_of

pytestmark = pytest.mark.usefixtures("local_ray")


def job(corpus: str, output: str, server: Any) -> TranscribeSpec:
    return TranscribeSpec(
        input=[corpus],
        output=output,
        model=str(ROOT / "demo" / "checkpoint"),
        rows_per_file=4,
        storage=StorageOptions(endpoint_url=server.endpoint),
    )


@pytest.fixture(scope="module")
def sound(demo_table: Path) -> dict[str, Row]:
    """The rows where no request fails."""
    return rows_of(demo_table)


def assert_same(rows: dict[str, Row], expected: dict[str, Row]) -> None:
    assert rows.keys() == expected.keys()
    for clip_id, row in rows.items():
        ours, theirs = ({**each, "encoder_s": None, "shard": None} for each in (row, expected[clip_id]))
        assert_close(ours, theirs, clip_id)


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_a_store_that_fails_now_and_then(
    moto_s3: Any, proxy: Proxy, demo_in_bucket: str, sound: dict[str, Row], rate: float
) -> None:
    output = moto_s3.uri(f"at-{rate}")
    proxy.faults = Faults(rate, seed=1)
    for _ in range(8):  # where a request failed as often as it was tried, the same command goes on
        with suppress(JobError):
            if run(job(demo_in_bucket, output, proxy)).complete:
                break
    assert len(proxy.faults.done) > 5
    assert_same(rows_at(output), sound)


def test_credentials_that_expire_midway(
    moto_s3: Any, proxy: Proxy, demo_in_bucket: str, sound: dict[str, Row], tmp_path: Path
) -> None:
    output = moto_s3.uri("expired")

    def start() -> RunSummary:
        return run(job(demo_in_bucket, output, proxy))

    shards = "/corpora/demo/corpus/parquet"
    proxy.faults = Faults(within=shards)
    look([demo_in_bucket], storage_at(proxy), tmp_path)
    before_work = proxy.faults.done["requests"]
    proxy.faults = Faults(spares=before_work, expires=True, within=shards)
    summary = start()
    assert not summary.complete
    assert list(summary.undelivered) == [f"{demo_in_bucket}/parquet/train-00000-of-00001.parquet"]
    assert all("is forbidden" in reason for reason in summary.undelivered.values())
    others = {clip_id: row for clip_id, row in sound.items() if not clip_id.startswith("parquet/")}
    assert_same(rows_at(output), others)

    proxy.faults = Faults(spares=1, expires=True, within="/corpora/expired/")
    with pytest.raises(JobError, match="is forbidden"):
        start()

    proxy.faults = Faults()
    summary = start()
    assert summary.complete
    assert_same(rows_at(output), sound)
    assert start().shards_read == 0
