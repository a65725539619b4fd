"""A job from s3:// to s3:// over HTTP: the words of a local run, nothing read twice, no credential left."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pyarrow.parquet as pq
import pytest
import ray

from jobs.cli import read_spec
from pipeline.errors import JobError
from pipeline.job import plan, run
from pipeline.reports.plan import format_plan
from pipeline.reports.summary import format_summary
from pipeline.spec import TranscribeSpec
from pipeline.storage import StorageOptions
from tests.jobs.tables import log_of, rows_of

ROOT = Path(__file__).resolve().parents[2]
INPUTS = ("corpus", "audio", "checkpoint")
# Of three ways in: a YAML file, the URI of an audio file, and, in conftest.py, the environment.
IN_FILE = {"key": "AKIA-of-the-file", "secret": "file+secret/of@mine#1", "token": "file-token/+=="}
IN_URI = "password/of+a@manifest"


def spec_in(base: str, **other: Any) -> TranscribeSpec:
    inputs = [f"{base}/corpus", f"{base}/signed"]
    host = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    return TranscribeSpec(
        **{
            "allow_hosts": [host],
            "input": inputs,
            "output": f"{base}/out",
            "model": f"{base}/checkpoint",
            **other,
        }
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
    lines = [json.dumps({"audio_filepath": uri, "about": about}) for about, uri in signed(moto_s3).items()]
    moto_s3.client.put_object(
        Bucket=moto_s3.bucket, Key="demo/signed/list.jsonl", Body="\n".join(lines).encode()
    )
    return moto_s3.uri("demo")


def signed(moto_s3: Any) -> dict[str, str]:
    """Audio files by URIs with credentials: only the first is there to be read."""
    presigned = {
        about: moto_s3.client.generate_presigned_url(
            "get_object", Params={"Bucket": moto_s3.bucket, "Key": f"demo/audio/{name}"}
        )
        for about, name in (("signed", "clip-0.flac"), ("signed and missing", "missing.flac"))
    }
    host = moto_s3.endpoint.removeprefix("http://")
    return presigned | {
        "password": f"http://user:{quote(IN_URI, safe='')}@{host}/corpora/missing.flac",
        "secret of S3": f"s3://AKIA:{IN_URI}@corpora/demo/audio/clip-0.flac",
    }


@pytest.fixture(scope="module")
def runs(
    remote: str, local_ray: None, moto_s3: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any], str, dict[str, bytes]]:
    """Two runs: both summaries, all that was printed or logged, and the files of the output.

    The first has its credentials from a file, the second from the environment.
    """
    said: list[str] = []
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.addFilter(lambda record: record.name != "werkzeug")  # the server, in the same process
    logging.getLogger().addHandler(handler)
    file = tmp_path_factory.mktemp("job") / "job.yaml"
    file.write_text(json.dumps({**spec_in(remote).public(), "storage": IN_FILE}))
    try:
        of_file = read_spec(TranscribeSpec, ["--config", str(file)], program="job", environment={})
        said.append(format_plan(plan(of_file)))
        runs = [run(spec, say=said.append) for spec in (of_file, spec_in(remote))]
        said += map(format_summary, runs)
        first, second = (summary.as_json() for summary in runs)
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


def test_the_bucket_gives_what_the_disk_gives(runs: Any, demo_table: Path) -> None:
    local = list(rows_of(demo_table).values())
    (run_file,) = set(log_of(demo_table).glob("*.json")) - {log_of(demo_table) / "table.json"}
    summary = json.loads(run_file.read_text())
    first, _, _, files = runs
    assert len(local) == 30
    unsigned = [row for row in rows_in(files) if not row["shard"].endswith("/signed/list.jsonl")]
    for row in unsigned:
        del row["about"]
    assert without_costs(unsigned) == without_costs(local)
    assert (summary["clips"], summary["errors"]) == (30, {"undecodable": 1})
    assert (first["clips"], first["errors"]) == (34, {"not_found": 2, "undecodable": 1, "not_a_file": 1})
    assert first["word_edits"] == summary["word_edits"]


def test_a_second_run_reads_nothing(runs: Any) -> None:
    first, second, _, files = runs
    assert first["shards_skipped"] == 0
    assert (second["clips"], second["shards_read"]) == (0, 0)
    assert second["shards_skipped"] == first["shards_read"] == 10
    assert len(rows_in(files)) == 34


def secrets(moto_s3: Any) -> set[bytes]:
    """All that nobody may read, as it is and as URIs spell it."""
    found = {os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["AWS_SESSION_TOKEN"], *IN_FILE.values(), IN_URI}
    for uri in signed(moto_s3).values():
        query = parse_qs(urlsplit(uri).query)
        found |= {value for name, (value,) in query.items() if name in ("Signature", "X-Amz-Signature")}
    return {form.encode() for secret in found for form in (secret, quote(secret), quote(secret, safe=""))}


def test_no_credential_is_written_or_said(runs: Any, moto_s3: Any) -> None:
    first, second, said, files = runs
    context = ray.get_runtime_context()
    session = Path(context.get_temp_dir(), context.get_session_name())
    left = {str(file): file.read_bytes() for file in session.rglob("*") if file.is_file()}
    assert any("/logs/" in name for name in left)
    assert any(key == f"demo/_out.runs/{first['run_id']}.json" for key in files)
    for key, content in files.items():
        left[key] = content
        if key.endswith(".parquet"):  # pages are compressed
            table = pq.read_table(io.BytesIO(content))
            left[f"{key}: rows"] = repr(table.to_pylist()).encode()
            left[f"{key}: metadata"] = repr(
                (table.schema.metadata, pq.read_metadata(io.BytesIO(content)))
            ).encode()
    left |= {"said": said.encode(), "summaries": repr((first, second)).encode()}
    found = {
        (name, secret) for name, content in left.items() for secret in secrets(moto_s3) if secret in content
    }
    assert found == set()
    assert len(secrets(moto_s3)) > 10


def test_of_signed_audio_the_row_tells_where_it_is(runs: Any, moto_s3: Any) -> None:
    *_, files = runs
    rows = {row["about"]: row for row in rows_in(files) if row["about"]}
    place = f"{moto_s3.endpoint}/corpora/demo/audio"
    assert {about: row["audio_filepath"] for about, row in rows.items()} == {
        "signed": f"{place}/clip-0.flac?***",
        "signed and missing": f"{place}/missing.flac?***",
        "password": f"{moto_s3.endpoint.replace('//', '//***@')}/corpora/missing.flac",
        "secret of S3": "s3://***@corpora/demo/audio/clip-0.flac",
    }
    assert rows["signed"]["text"]
    assert f"{place}/missing.flac?*** does not exist" == rows["signed and missing"]["error"]["message"]


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
