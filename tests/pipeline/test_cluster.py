"""Which Ray cluster a job joins."""

from __future__ import annotations

import os
import subprocess
import sys

# Says its cluster's address, and stays until its standard input ends.
JOB = """
import sys
import ray
from pipeline.cluster import connect
connect(sys.argv[1] if sys.argv[1:] else None)
print("address", ray.get_runtime_context().gcs_address, int(ray.cluster_resources()["CPU"]), flush=True)
sys.stdin.read()
"""


def job(*address: str) -> subprocess.Popen[str]:
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
