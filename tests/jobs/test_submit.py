"""`ray job submit` of a checkout to a cluster that has nothing of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.request import Request, urlopen

import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.head_node import RAY, HeadNode, fresh_home, head_node, started

pytestmark = pytest.mark.usefixtures("own_cluster")

RUNS = ("local", "submitted", "joined")


def wait_until_up(head: HeadNode) -> None:
    """Returns once the dashboard answers; `ray start` says "started" a little earlier."""
    token = head.environment.get("RAY_AUTH_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = Request(f"{head.dashboard}/api/version", headers=headers)
    deadline = time.monotonic() + 90
    while True:
        try:
            with urlopen(request, timeout=5):
                return
        except OSError as problem:  # refused, or an HTTP status
            if time.monotonic() > deadline:
                pytest.fail(f"no dashboard: {problem}\n{(head.root / 'start.log').read_text()}")
            time.sleep(0.2)


def finished(
    command: Sequence[str], environment: Mapping[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False
    )


def submission(head: HeadNode, corpus: str) -> list[str]:
    command = [*RAY, "job", "submit", "--address", head.dashboard, "--working-dir", str(ROOT), "--"]
    return [*command, sys.executable, "jobs/transcribe.py", "--input", corpus, "--model", "demo/checkpoint"]


@pytest.mark.soak
def test_a_submitted_checkout_writes_the_table(tmp_path: Path) -> None:
    with head_node(cpus=2) as head:
        wait_until_up(head)
        output = tmp_path / "out"
        job = finished(
            [*submission(head, "demo/corpus"), "--output", str(output)], head.environment, tmp_path
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


def test_a_local_job_leaves_nothing_behind_that_stops_ray_start_and_what_is_sent_there(
    tmp_path: Path,
) -> None:
    """All with Ray's defaults, in a home without a token."""
    loose = ROOT / "demo/corpus/loose/telephone.wav"
    local = [sys.executable, str(ROOT / "jobs/transcribe.py"), "--input", str(loose)]
    local += ["--model", str(ROOT / "demo/checkpoint"), "--output"]
    with fresh_home() as (home, environment):
        alone = finished([*local, str(tmp_path / "local")], environment, tmp_path)
        assert alone.returncode == 0, alone.stderr[-4000:]
        assert not (home / ".ray").exists()
        with started(2, home, environment) as head:
            wait_until_up(head)
            submit = [*submission(head, "demo/corpus/loose/telephone.wav"), "--output"]
            address = {**environment, "RAY_ADDRESS": head.address}
            for command, around in (
                ([*submit, str(tmp_path / "submitted")], environment),
                ([*local, str(tmp_path / "joined")], address),
            ):
                job = finished(command, around, tmp_path)
                assert job.returncode == 0, job.stdout[-4000:] + job.stderr[-4000:]
    texts = [pq.read_table(next(tmp_path.glob(f"{name}/*.parquet")))["text"].to_pylist() for name in RUNS]
    assert texts == [texts[0]] * 3
