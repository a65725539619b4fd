"""A table, its audio and its page in a bucket; and no credentials in the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import boto3
import pytest

from pipeline.report.job import report
from pipeline.report.spec import ReportSpec
from tests.pipeline.report.tables import CORPUS, rows, write


def data_of(page: str) -> dict[str, list[dict[str, object]]]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    found: dict[str, list[dict[str, object]]] = json.loads(text.replace("<\\/script", "</script"))
    return found


@pytest.mark.slow
def test_from_bucket_to_bucket(bucket: str, tmp_path: Path) -> None:
    client = boto3.client("s3", region_name="us-east-1")
    name = bucket.removeprefix("s3://")
    held = [
        {**row, "shard": row["shard"].replace(str(CORPUS), f"{bucket}/corpus"), "ref_text": "testing aloud"}
        for row in rows()
        if not row["clip_id"].startswith("manifest")
    ]
    for file in write(tmp_path / "table", held).iterdir():
        client.upload_file(str(file), name, f"lake/a=b/{file.name}")
    for file in CORPUS.rglob("*.*"):
        client.upload_file(str(file), name, f"corpus/{file.relative_to(CORPUS)}")
    output = f"{bucket}/pages/report.html"
    done = report(ReportSpec(table=f"{bucket}/lake/a=b", output=output))
    assert (done.output, done.clips, done.listed, done.heard) == (output, 9, 9, 8)
    page = client.get_object(Bucket=name, Key="pages/report.html")["Body"].read().decode()
    assert len(page.encode()) == done.size
    clips = data_of(page)["clips"]
    assert {clip["id"] for clip in clips} == {row["clip_id"] for row in held}
    # The secret key of the test's store is a word of the texts, too.
    assert clips[0]["reference"] == "*** aloud"
    assert "testing aloud" not in page
