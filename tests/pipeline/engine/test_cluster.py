"""Which Ray cluster a job joins."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from pipeline.engine.cluster import TASK_CPUS, share_to_ask_for
from tests.conftest import ROOT
from tests.head_node import HeadNode, head_node

# Says its cluster's address, and stays until its standard input ends.
JOB = """
import sys
import ray
from pipeline.engine.cluster import connect
connect(sys.argv[1] if sys.argv[1:] else None)
print("address", ray.get_runtime_context().gcs_address, int(ray.cluster_resources()["CPU"]), flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.usefixtures("own_cluster")


def job(*address: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    if environment is None:
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-c", JOB, *address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def address_of(running: subprocess.Popen[str]) -> tuple[str, int]:
    assert running.stdout is not None
    words = next(line.split() for line in running.stdout if line.startswith("address "))
    return words[1], int(words[2])


def test_a_job_does_not_join_the_cluster_that_another_job_started_for_itself() -> None:
    """It would lose its workers when that job ends."""
    first, second = job("local"), None
    try:
        address, cpus = address_of(first)
        assert cpus == max(2, os.cpu_count() or 1)
        second = job()
        assert address_of(second)[0] != address
    finally:
        for running in (second, first):
            if running is not None:
                running.communicate()


def wait_until_known(head: HeadNode) -> None:
    """Returns once jobs of this machine can find the node."""
    deadline = time.monotonic() + 90
    while not (head.root / "ray" / "ray_current_cluster").exists():
        if time.monotonic() > deadline:
            pytest.fail((head.root / "start.log").read_text())
        time.sleep(0.2)


def test_a_job_joins_what_ray_start_started() -> None:
    """Unasked, by RAY_ADDRESS and by address. Its number of CPUs tells it from one the job would start."""
    cpus = max(2, os.cpu_count() or 1) + 1
    with head_node(cpus) as head:
        wait_until_known(head)
        elsewhere = {**head.environment, "RAY_TMPDIR": str(head.root / "elsewhere")}
        for running in (
            job(environment=head.environment),
            job(environment={**elsewhere, "RAY_ADDRESS": head.address}),
            job(head.address, environment=elsewhere),
        ):
            try:
                address, found = address_of(running)
                # Ray calls this machine by its name in the network.
                assert (address.split(":")[1], found) == (head.address.split(":")[1], cpus)
            finally:
                running.communicate()


@pytest.mark.parametrize(
    ("nodes", "cpus", "used"),
    [(1, 2, 1.5), (1, 64, 63.5), (2, 2, 3.0), (2, 1, 1.5), (3, 2, 5.0), (4, 16, 60.0)],
)
def test_the_smallest_node_has_room_for_all_actors(nodes: int, cpus: int, used: float) -> None:
    share = share_to_ask_for(used, cpus)
    assert used * share + 2 * TASK_CPUS <= cpus + 1e-9
    assert (share == 1.0) == (nodes == 1)


def test_many_nodes_are_filled_by_their_size() -> None:
    assert share_to_ask_for(1590, 16) == 0.25


# A cluster that counts a GPU which is not there. First its nodes are asked, then only the actor finds out.
WITHOUT_A_GPU = """
import sys
import ray
from jobs.transcribe import main
from pipeline.engine.cluster import pools
ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
first = main(sys.argv[1:] + ["first"])
pools.check_gpus = lambda: None
print("statuses", first, main(sys.argv[1:] + ["second"]))
"""


@pytest.mark.soak
@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_gpu_that_cannot_be_used_is_told_before_any_work(tmp_path: Path) -> None:
    told = ["--input", ROOT / "demo/corpus/loose", "--model", ROOT / "demo/checkpoint", "--output"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_GPU, *map(str, told)],
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "statuses 2 2" in ran.stdout
    assert not (tmp_path / "first").exists()
    assert list((tmp_path / "second").glob("*.parquet")) == []
    said = [
        line for line in ran.stderr.splitlines() if f"PyTorch {torch.__version__}, built for CUDA" in line
    ]
    told_by = (
        "model actors are to run on GPUs, but node ",
        "a model actor cannot use the GPU that it was given",
    )
    lines = [line for line in said if any(one in line for one in told_by) and "Error" not in line]
    assert len(lines) == 2, ran.stderr
    for line, told_so in zip(lines, told_by, strict=True):
        assert told_so in line
        assert "Found no NVIDIA driver" in line
        assert "NVIDIA driver none" in line
