"""Ctrl-C and SIGTERM: a line, a status of their own, and the same command goes on."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.storage import Storage, StorageOptions
from pipeline.table.ledger import Ledger
from tests.conftest import ROOT
from tests.jobs.tables import log_of
from tests.jobs.test_kill import CLIPS, LONGEST_S, make_shard

SHARDS = 4


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder, rng = tmp_path / "in", random.Random(5)
    folder.mkdir()
    for number in range(SHARDS):
        make_shard(folder / f"{number}.tar", rng)
    return folder


def rows(output: Path) -> int:
    return sum(record.rows for record in Ledger(str(output), Storage(StorageOptions())).files())


def start(corpus: Path, output: Path, log: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs", "transcribe", str(corpus), "--output", str(output)]
    command += ["--model", str(ROOT / "demo/checkpoint"), "--rows-per-file", "4", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as said, log.with_suffix(".json").open("w") as result:
        return subprocess.Popen(
            command,
            stdout=result,
            stderr=said,
            cwd=ROOT,
            text=True,
            env=environment,
            preexec_fn=heeds_interrupts,
        )


def heeds_interrupts() -> None:
    """As a command in a terminal does, also where these tests run in the background and do not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_rows(output: Path, more_than: int, process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + LONGEST_S
    while not log_of(output).exists() or rows(output) <= more_than:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_job_that_is_stopped_says_what_it_keeps(corpus: Path, tmp_path: Path, local_ray: None) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    kept = 0
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(corpus, output, log)
        wait_for_rows(output, kept, process, log)
        process.send_signal(number)
        assert process.wait(LONGEST_S) == 128 + number
        said = log.read_text().splitlines()
        told = re.fullmatch(
            r"w2vbert transcribe: stopped after (\d+) clips; the same command goes on", said[-1]
        )
        assert told is not None, said
        assert 0 < int(told[1]) <= rows(output) - kept
        assert not any("Traceback" in line for line in said)
        assert not (log_of(output) / "lock.json").exists()
        kept = rows(output)
    process = start(corpus, output, log)
    assert process.wait(LONGEST_S) == 0, log.read_text()
    summary = json.loads(log.with_suffix(".json").read_text())
    assert summary["clips_done_before"] == kept
    assert summary["clips"] == SHARDS * CLIPS - kept
    assert summary["rtfx_work"] == summary["hours"] * 3600 / summary["work_s"]
    assert summary["rtfx"] < summary["rtfx_work"]


def test_a_tool_that_is_stopped_has_nothing_to_go_on_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from jobs.cli import Tool, tool
    from pipeline.export.spec import ExportSpec

    def work(spec: ExportSpec) -> None:
        os.kill(os.getpid(), stop)

    main = tool(ExportSpec, lambda: Tool(work, str), program="jobs/export.py")
    for stop in (signal.SIGINT, signal.SIGTERM):
        assert main(["table", "--format", "srt", "--output", "o"]) == 128 + stop
        assert capsys.readouterr().err == "jobs/export.py: stopped\n"
