"""A Ray head node with ports, a folder and a session of its own, as `ray start --head` gives it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

RAY = (sys.executable, "-m", "ray.scripts.scripts")
TOKEN = secrets.token_hex(32)


@dataclass(frozen=True)
class HeadNode:
    """Where it listens.

    Attributes:
        address: of its control store, host:port.
        dashboard: URL.
        root: its folder; Ray's own is `ray/` in it.
        environment: the caller's, with what leads to this cluster in place of what would lead to another: its
            token, the home, and the folder where `ray start` notes what runs.
    """

    address: str
    dashboard: str
    root: Path
    environment: dict[str, str]


@contextmanager
def fresh_home() -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder that is the home and holds Ray's files, and an environment without any other word of Ray."""
    root = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # Ray's sockets allow for about 60 characters here
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_TMPDIR": str(root),
        "HOME": str(root),
    }
    yield root, environment
    shutil.rmtree(root, ignore_errors=True)


def run_program(module: str, *arguments: object, timeout_s: float, **variables: str) -> str:
    """What a module of `tests` prints that starts clusters of its own, in a fresh home with a token."""
    with fresh_home() as (_, environment):
        ran = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=Path(__file__).parent.parent,
            env=environment | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN} | variables,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr[-4000:]
    return ran.stdout


@contextmanager
def head_node(cpus: int) -> Iterator[HeadNode]:
    """A node in a fresh home, with a token."""
    with fresh_home() as (root, environment):
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        with started(cpus, root, environment) as head:
            yield head


@contextmanager
def started(cpus: int, root: Path, environment: dict[str, str]) -> Iterator[HeadNode]:
    """Starts the node, without waiting for it, and takes down its own processes and no others."""
    gcs, dashboard, client, agent, agent_grpc, metrics = _free_ports(6)
    command = [*RAY, "start", "--head", "--block", f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1"]
    command += [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}"]
    command += [f"--metrics-export-port={metrics}", "--object-store-memory=200000000"]
    with (root / "start.log").open("wb") as log:
        head = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            yield HeadNode(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}", root, environment)
        finally:
            head.terminate()  # `--block` takes its own processes down with it
            try:
                head.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(head.pid, signal.SIGKILL)
                head.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
