"""The command: flags, exit statuses, what is printed; and tables and outputs in a bucket."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.export import main
from pipeline.errors import JobError
from pipeline.export.job import export
from pipeline.export.spec import ExportSpec
from pipeline.schema import output_schema
from pipeline.tasks.diarize import DIARIZATION_COLUMNS
from pipeline.tasks.transcribe import TRANSCRIPT_COLUMNS

ROOT = Path(__file__).resolve().parents[2]
CTM = "b.tar#{n} 1 0.500 0.250 yes 0.750\n"
SRT = "1\n00:00:00,500 --> 00:00:00,750\nyes\n\n"


def table_of(clips: int, first: int = 0) -> pa.Table:
    rows: list[dict[str, Any]] = [
        {
            "clip_id": f"b.tar#{n}",
            "shard": "/in/b.tar",
            "duration_s": 1.5,
            "text": "yes",
            "words": [{"word": "yes", "start_s": 0.5, "end_s": 0.75, "confidence": 0.75}],
            "segments": [{"speaker": "speaker_0", "start_s": 0.5, "end_s": 0.75}],
        }
        for n in range(first, first + clips)
    ]
    schema = output_schema(pa.schema([]), TRANSCRIPT_COLUMNS | DIARIZATION_COLUMNS)
    return pa.Table.from_pylist(rows, schema=schema)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "table").mkdir()
    pq.write_table(table_of(2), tmp_path / "table/0.parquet")
    return tmp_path / "table"


@pytest.fixture(scope="module")
def bucket(moto_s3: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A table of two files in the bucket, with a `_run/` beside them."""
    folder = tmp_path_factory.mktemp("table")
    for number in range(2):
        pq.write_table(table_of(2, 2 * number), folder / "part.parquet")
        for key in (f"lake/t/{number}.parquet", f"lake/t/_run/commit/{number}.parquet"):
            moto_s3.client.upload_file(str(folder / "part.parquet"), moto_s3.bucket, key)
    return moto_s3


def keys(s3: Any, prefix: str) -> dict[str, str]:
    listed = s3.client.list_objects_v2(Bucket=s3.bucket, Prefix=prefix).get("Contents", [])
    return {
        item["Key"]: s3.client.get_object(Bucket=s3.bucket, Key=item["Key"])["Body"].read().decode()
        for item in listed
    }


@pytest.mark.slow
def test_the_command(table: Path, tmp_path: Path) -> None:
    command = [sys.executable, "jobs/export.py", "--table", str(table), "--format", "ctm"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "new/folder/out.ctm")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"clips       2 written\noutput      {tmp_path / 'new/folder/out.ctm'}\n"
    assert (tmp_path / "new/folder/out.ctm").read_text() == CTM.format(n=0) + CTM.format(n=1)


def test_flags(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    least = ["--table", str(table), "--output", str(tmp_path / "out")]
    assert main([*least, "--format", "srt", "--no-per-clip"]) == 0
    assert (tmp_path / "out").read_text() == SRT + SRT.replace("1\n00", "2\n00").replace(
        ":00,", ":01,"
    ).replace("01,500", "02,000").replace("01,750", "02,250")
    (tmp_path / "out").unlink()
    assert main([*least, "--format", "ctm", "--per-clip"]) == 0
    assert (tmp_path / "out/b.tar/1.ctm").read_text() == CTM.format(n=1)
    assert capsys.readouterr().out.endswith(f"output      {tmp_path / 'out'}, a file per clip\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "srt"], "output is missing"),
        (["--format", "srt", "--output", "o", "--embeddings"], "srt has no place for them"),
        (["--format", "rttm", "--output", "o", "--reference"], "rttm holds speakers, no words"),
        (["--format", "ctm", "--output", "o", "--table", "/no/such/table"], "/no/such/table does not exist"),
    ],
)
def test_bad_configuration(
    arguments: list[str], said: str, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--table", str(table), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_an_unknown_format_names_those_there_are(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--table", str(table), "--output", "o", "--format", "docx"]) == 2
    assert "rttm" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("given", ["lake/t", "lake/t/", "lake/t/*.parquet", "lake/**"])
def test_a_table_in_a_bucket(bucket: Any, tmp_path: Path, given: str) -> None:
    assert main(["--table", bucket.uri(given), "--format", "ctm", "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_text() == "".join(CTM.format(n=n) for n in range(4))


def test_from_bucket_to_bucket(bucket: Any) -> None:
    least = ["--table", bucket.uri("lake/t"), "--output"]
    assert main([*least, bucket.uri("x/all.ctm"), "--format", "ctm"]) == 0
    assert main([*least, bucket.uri("x/clips"), "--format", "srt"]) == 0
    assert keys(bucket, "x/") == {
        "x/all.ctm": "".join(CTM.format(n=n) for n in range(4)),
        **{f"x/clips/b.tar/{n}.srt": SRT for n in range(4)},
    }


@pytest.mark.slow
def test_a_large_file_goes_up_in_parts_and_whole(bucket: Any, tmp_path: Path) -> None:
    long = "word" * 12_000
    words = [{"word": long, "start_s": n * 1.0, "end_s": n + 0.5, "confidence": 0.5} for n in range(1200)]
    row = {"clip_id": "b.tar#0", "shard": "/in/b.tar", "duration_s": 1000.0, "text": "", "words": words}
    schema = output_schema(pa.schema([]), TRANSCRIPT_COLUMNS)
    pq.write_table(pa.Table.from_pylist([row], schema=schema), tmp_path / "t.parquet")
    for output in (bucket.uri("large/out.ctm"), str(tmp_path / "out.ctm")):
        export(ExportSpec(table=str(tmp_path / "t.parquet"), format="ctm", output=output))
    found = keys(bucket, "large/")["large/out.ctm"]
    assert len(found) > 50 << 20  # more than a part
    assert found == (tmp_path / "out.ctm").read_text()


def test_a_failed_export_leaves_the_bucket_as_it_was(bucket: Any, tmp_path: Path) -> None:
    bucket.client.put_object(Bucket=bucket.bucket, Key="kept/out.ctm", Body=b"before")
    for clips, name in ((2, "0.parquet"), (2000, "1.parquet")):
        pq.write_table(table_of(clips), tmp_path / name, compression="none", use_dictionary=False)
    whole = (tmp_path / "1.parquet").read_bytes()
    (tmp_path / "1.parquet").write_bytes(whole[:100] + b"\xff" * 60_000 + whole[60_100:])
    spec = ExportSpec(table=str(tmp_path / "*.parquet"), format="ctm", output=bucket.uri("kept/out.ctm"))
    with pytest.raises(JobError, match="is there already"):
        export(spec)
    with pytest.raises(JobError, match=r"1\.parquet"):
        export(spec.model_copy(update={"overwrite": True}))
    assert keys(bucket, "kept/") == {"kept/out.ctm": "before"}
    assert bucket.client.list_multipart_uploads(Bucket=bucket.bucket).get("Uploads", []) == []


def test_a_bucket_that_is_not_there(table: Path, bucket: Any, capsys: pytest.CaptureFixture[str]) -> None:
    missing = "s3://no-such-bucket/place"
    for arguments, said in [
        (["--table", missing, "--output", "/tmp/never"], f"--table {missing} does not exist"),
        (["--table", str(table), "--output", missing], f"--output {missing} does not exist"),
    ]:
        for per_clip in ("--per-clip", "--no-per-clip"):
            assert main([*arguments, "--format", "srt", per_clip]) == 2
            assert said in capsys.readouterr().err
    assert main(["--table", "s3://k:secret@bucket/t", "--output", "o", "--format", "ctm"]) == 2
    assert "secret@" not in capsys.readouterr().err
