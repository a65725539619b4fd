"""`ray job submit` of a checkout to a cluster that has nothing of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.request import Request, urlopen

import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.head_node import RAY, HeadNode, head_node


def wait_until_up(head: HeadNode) -> None:
    """Returns once the dashboard answers; `ray start` says "started" a little earlier."""
    token = head.environment["RAY_AUTH_TOKEN"]
    request = Request(f"{head.dashboard}/api/version", headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + 90
    while True:
        try:
            with urlopen(request, timeout=5):
                return
        except OSError as problem:  # refused, or an HTTP status
            if time.monotonic() > deadline:
                pytest.fail(f"no dashboard: {problem}\n{(head.root / 'start.log').read_text()}")
            time.sleep(0.2)


def test_a_submitted_checkout_writes_the_table(tmp_path: Path) -> None:
    with head_node(cpus=2) as head:
        wait_until_up(head)
        output = tmp_path / "out"
        submit = [*RAY, "job", "submit", "--address", head.dashboard, "--working-dir", str(ROOT), "--"]
        submit += [sys.executable, "jobs/transcribe.py", "--input", "demo/corpus", "--output", str(output)]
        submit += ["--model", "demo/checkpoint"]
        job = subprocess.run(
            submit,
            cwd=tmp_path,
            env=head.environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert job.returncode == 0, job.stdout[-4000:] + job.stderr[-4000:]
        assert "30 (29 annotated)" in job.stdout

        rows = [row for file in sorted(output.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
        assert len({row["clip_id"] for row in rows}) == len(rows) == 30
        folders = Counter(row["clip_id"].split("/")[0] for row in rows)
        assert folders == {"parquet": 10, "webdataset": 8, "loose": 6, "manifest": 6}
        assert [row["error"]["code"] for row in rows if row["error"]] == ["undecodable"]
        spoken = [row["text"] for row in rows if row["clip_id"] == "manifest/list.jsonl#1"]
        assert spoken == ["six one nine three"]

        # The job ran from what was uploaded, and that is the project alone: a few MB.
        (uploaded,) = head.root.glob(
            "ray/session_2*/runtime_resources/working_dir_files/_ray_pkg_*/jobs/transcribe.py"
        )
        package = uploaded.parents[1]
        assert all(str(package) in row["shard"] for row in rows)
        for left_out in (".git", ".venv", ".mypy_cache", ".hypothesis"):
            assert not (package / left_out).exists(), f"{left_out} was uploaded"
        size = sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
        assert size < 20 << 20
