"""`ray job submit` of a checkout to a cluster that has nothing of it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
RAY = (sys.executable, "-m", "ray.scripts.scripts")
TOKEN = secrets.token_hex(32)


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass(frozen=True)
class Cluster:
    dashboard: str
    home: Path


def environment() -> dict[str, str]:
    """The caller's, without what would lead to another cluster; only who has the token may use this one."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
    }


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head node with ports and a folder of its own, in a session of its own."""
    home = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # Ray's sockets allow for about 60 characters here
    gcs, dashboard, client, agent, agent_grpc, metrics = free_ports(6)
    command = [*RAY, "start", "--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1"]
    command += [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}"]
    command += [f"--metrics-export-port={metrics}", f"--temp-dir={home}", "--object-store-memory=200000000"]
    with (home / "start.log").open("wb") as log:
        head = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment(), start_new_session=True
        )
        try:
            yield Cluster(f"http://127.0.0.1:{dashboard}", home)
        finally:
            head.terminate()  # `--block` takes its own processes down with it, and no others
            try:
                head.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(head.pid, signal.SIGKILL)
                head.wait()
    shutil.rmtree(home, ignore_errors=True)


def wait_until_up(cluster: Cluster) -> None:
    """Returns once the dashboard answers; `ray start` says "started" a little earlier."""
    request = Request(f"{cluster.dashboard}/api/version", headers={"Authorization": f"Bearer {TOKEN}"})
    deadline = time.monotonic() + 90
    while True:
        try:
            with urlopen(request, timeout=5):
                return
        except OSError as problem:  # refused, or an HTTP status
            if time.monotonic() > deadline:
                pytest.fail(f"no dashboard: {problem}\n{(cluster.home / 'start.log').read_text()}")
            time.sleep(0.2)


def test_a_submitted_checkout_writes_the_table(cluster: Cluster, tmp_path: Path) -> None:
    output = tmp_path / "out"
    submit = [*RAY, "job", "submit", "--address", cluster.dashboard, "--working-dir", str(ROOT), "--"]
    submit += [sys.executable, "jobs/transcribe.py", "--input", "demo/corpus", "--output", str(output)]
    submit += ["--model", "demo/checkpoint"]
    wait_until_up(cluster)
    job = subprocess.run(
        submit, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=400, check=False
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
    (uploaded,) = cluster.home.glob(
        "session_2*/runtime_resources/working_dir_files/_ray_pkg_*/jobs/transcribe.py"
    )
    package = uploaded.parents[1]
    assert all(str(package) in row["shard"] for row in rows)
    for left_out in (".git", ".venv", ".mypy_cache", ".hypothesis"):
        assert not (package / left_out).exists(), f"{left_out} was uploaded"
    size = sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
    assert size < 20 << 20
