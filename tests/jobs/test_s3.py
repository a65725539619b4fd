"""A job from s3:// to s3:// over HTTP: the words of a local run, nothing read twice, no credential left."""

from __future__ import annotations

import io
import logging
import os
import socket
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray

from pipeline.errors import JobError
from pipeline.job import run
from pipeline.spec import TranscribeSpec
from pipeline.storage import StorageOptions

ROOT = Path(__file__).resolve().parents[2]
INPUTS = ("corpus", "audio", "checkpoint")


def spec_in(base: str, **other: Any) -> TranscribeSpec:
    return TranscribeSpec(
        **{"input": [f"{base}/corpus"], "output": f"{base}/out", "model": f"{base}/checkpoint", **other}
    )


def without_costs(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows by id, without what differs from place to place; text, words and carried columns stay."""
    dropped = ("shard", "encoder_s", "text_confidence", "words", "error")
    return {
        row["clip_id"]: {name: value for name, value in row.items() if name not in dropped}
        | {"words": [(word["word"], word["start_s"], word["end_s"]) for word in row["words"] or []]}
        | {"error": row["error"] and row["error"]["code"]}
        for row in rows
    }


@pytest.fixture(scope="module")
def remote(moto_s3: Any) -> str:
    """The demo in the bucket."""
    for folder in INPUTS:
        for file in sorted((ROOT / "demo" / folder).rglob("*")):
            if file.is_file():
                key = f"demo/{file.relative_to(ROOT / 'demo').as_posix()}"
                moto_s3.client.upload_file(str(file), moto_s3.bucket, key)
    return moto_s3.uri("demo")


@pytest.fixture(scope="module")
def runs(
    remote: str, local_ray: None, moto_s3: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any], str, dict[str, bytes]]:
    """Two runs: both summaries, all that was printed or logged, and the files of the output."""
    said: list[str] = []
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    try:
        first = run(spec_in(remote), say=said.append).as_json()
        second = run(spec_in(remote), say=said.append).as_json()
    finally:
        logging.getLogger().removeHandler(handler)
    places = ("demo/out/", "demo/_out.runs/")
    pages = [moto_s3.client.list_objects_v2(Bucket=moto_s3.bucket, Prefix=place) for place in places]
    listed = [item for page in pages for item in page["Contents"]]
    files = {
        item["Key"]: moto_s3.client.get_object(Bucket=moto_s3.bucket, Key=item["Key"])["Body"].read()
        for item in listed
    }
    return first, second, "\n".join(said) + log.getvalue(), files


def rows_in(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [
        row
        for key, content in files.items()
        if key.endswith(".parquet")
        for row in pq.read_table(io.BytesIO(content)).to_pylist()
    ]


def test_the_bucket_gives_what_the_disk_gives(runs: Any, tmp_path: Path) -> None:
    summary = run(
        TranscribeSpec(
            input=[str(ROOT / "demo/corpus")],
            output=str(tmp_path / "out"),
            model=str(ROOT / "demo/checkpoint"),
        )
    ).as_json()
    local = [
        row
        for file in sorted((tmp_path / "out").glob("*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]
    first, _, _, files = runs
    assert len(local) == 30
    assert without_costs(rows_in(files)) == without_costs(local)
    assert (
        (first["clips"], first["errors"]) == (summary["clips"], summary["errors"]) == (30, {"undecodable": 1})
    )
    assert first["word_edits"] == summary["word_edits"]


def test_a_second_run_reads_nothing(runs: Any) -> None:
    first, second, _, files = runs
    assert first["shards_skipped"] == 0
    assert (second["clips"], second["shards_read"]) == (0, 0)
    assert second["shards_skipped"] == first["shards_read"] == 9
    assert len(rows_in(files)) == 30


def test_no_credential_is_written_or_said(runs: Any, moto_s3: Any) -> None:
    first, second, said, files = runs
    context = ray.get_runtime_context()
    log_folder = Path(context.get_temp_dir(), context.get_session_name(), "logs")
    logs = [file.read_bytes() for file in log_folder.rglob("*") if file.is_file()]
    assert any(key == f"demo/_out.runs/{first['run_id']}.json" for key in files)
    assert logs
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        secret = os.environ[name]
        assert secret not in said + repr(first) + repr(second)
        assert [key for key, content in files.items() if secret.encode() in content] == []
        assert secret not in repr(rows_in(files))  # pages are compressed
        assert not any(secret.encode() in content for content in logs)


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("field", "said"),
    [("input", "does not exist"), ("output", "does not exist"), ("model", "no config.json there")],
)
def test_a_missing_bucket_is_named_before_work_starts(field: str, said: str, remote: str) -> None:
    missing = "s3://no-such-bucket/place"
    with pytest.raises(JobError) as raised:
        run(spec_in(remote, **{field: [missing] if field == "input" else missing}))
    message = str(raised.value)
    assert f"--{field} {missing}" in message
    assert said in message
    assert "Traceback" not in message


@pytest.mark.slow
def test_an_endpoint_that_nobody_serves_is_named(remote: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(JobError) as raised:
            run(spec_in(remote, storage=StorageOptions(endpoint_url=endpoint)))
    assert endpoint in str(raised.value)
    assert "cannot be reached" in str(raised.value)
