"""Which Ray cluster a job joins."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping

import pytest

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
