"""Two of the same command at once: one works, the other is refused before it touches anything."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.job import run
from pipeline.spec import TranscribeSpec
from tests.conftest import ROOT
from tests.jobs.tables import log_of, rows_of

pytestmark = pytest.mark.usefixtures("local_ray")
MODEL = ROOT / "demo" / "checkpoint"


def test_the_second_is_refused_and_the_table_is_whole(tmp_path: Path) -> None:
    output = tmp_path / "out"
    paths = ["--input", str(ROOT / "demo" / "corpus"), "--output", str(output), "--model", str(MODEL)]
    command = [sys.executable, str(ROOT / "jobs" / "transcribe.py"), *paths]
    first = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path
    )
    deadline = time.monotonic() + 120
    while not (log_of(output) / "lock.json").exists():
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    second = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert second.returncode == 4, second.stdout
    assert f"process {first.pid}" in second.stderr
    assert f"--output {output}" in second.stderr
    said, _ = first.communicate()
    assert first.returncode == 0, said
    assert len(rows_of(output)) == 30
    assert not (log_of(output) / "lock.json").exists()

    again = run(TranscribeSpec(input=[str(ROOT / "demo" / "corpus")], output=str(output), model=str(MODEL)))
    assert (again.shards_read, again.shards_skipped) == (0, 9)
    assert len(rows_of(output)) == 30


def test_a_killed_holder_does_not_keep_the_table(tmp_path: Path) -> None:
    output = tmp_path / "out"
    code = (
        "import os, signal, sys\n"
        "from pipeline.storage import Storage, StorageOptions\n"
        "from pipeline.table.lock import Lock\n"
        "Lock.take(*sys.argv[1:], Storage(StorageOptions()))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-c", code, str(output), str(log_of(output))], env=environment, check=False
    )
    assert (log_of(output) / "lock.json").exists()
    clip = ROOT / "demo" / "corpus" / "loose" / "lossless.flac"
    summary = run(TranscribeSpec(input=[str(clip)], output=str(output), model=str(MODEL)))
    assert summary.tally.annotated == 1
