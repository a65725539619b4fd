"""Killed anywhere and started again, a run ends with every clip exactly once."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.conftest import ROOT
from tests.jobs.tables import log_of

CLIPS, SHARDS, KILLS = 1000, 10, 5
WAIT_S = 240  # for the next file; a run that makes none in this time is stuck


def make_corpus(folder: Path) -> None:
    """A thousand clips, cut from the demo's longest, in ten tar shards."""
    sound, rate = soundfile.read(ROOT / "demo/audio/session.flac", dtype="int16")
    rng = random.Random(1)
    folder.mkdir()
    for shard in range(SHARDS):
        with tarfile.open(folder / f"shard-{shard:03d}.tar", "w") as tar:
            for index in range(CLIPS // SHARDS):
                start = rng.randrange(len(sound) - rate)
                buffer = io.BytesIO()
                soundfile.write(buffer, sound[start : start + rate // 2], rate, format="WAV")
                member = tarfile.TarInfo(f"{index:05d}.wav")
                member.size = len(buffer.getvalue())
                tar.addfile(member, io.BytesIO(buffer.getvalue()))


def command(corpus: Path, output: Path) -> list[str]:
    paths = ["--input", str(corpus), "--output", str(output), "--model", str(ROOT / "demo/checkpoint")]
    return [
        sys.executable,
        str(ROOT / "jobs/transcribe.py"),
        *paths,
        "--rows-per-file",
        "40",
        "--ray-address",
        "local",
    ]


def wait_for_files(output: Path, wanted: int, run: subprocess.Popen) -> bool:
    """True once the output holds so many files, False if the run ends before."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if len(list(output.glob("*.parquet"))) >= wanted:
            return True
        if run.poll() is not None:
            return False
        time.sleep(0.02)
    raise AssertionError(f"no {wanted} files in {WAIT_S} s")


def workers(run: subprocess.Popen) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(run.pid).children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if title.startswith("ray::") and ("MapWorker" in title or "Write" in title or "Read" in title):
            found.append(process)
    return found


def kill_a_worker(run: subprocess.Popen, rng: random.Random) -> bool:
    """Kills one that works; False if the run ends before. Between two tasks there may be none."""
    while run.poll() is None:
        if found := workers(run):
            with suppress(psutil.NoSuchProcess):  # gone since
                rng.choice(found).send_signal(signal.SIGKILL)
                return True
        time.sleep(0.02)
    return False


@pytest.mark.usefixtures("own_cluster")
def test_five_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    corpus, output = tmp_path / "corpus", tmp_path / "out"
    make_corpus(corpus)
    output.mkdir()
    rng = random.Random(7)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = 0
    while True:
        with (tmp_path / "log").open("w+") as log:
            run = subprocess.Popen(
                command(corpus, output), stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=ROOT
            )
            files = len(list(output.glob("*.parquet")))
            while killed < KILLS and wait_for_files(output, files + rng.randint(1, 3), run):
                if killed % 2 == 0:
                    run.send_signal(signal.SIGKILL)
                    killed += 1
                    break
                if not kill_a_worker(run, rng):
                    break
                killed += 1
                files = len(list(output.glob("*.parquet")))
            status = run.wait()
            log.seek(0)
            text = log.read()
        if status == 0:
            break
        assert status == -signal.SIGKILL, text
    assert killed == KILLS, f"the run was over after {killed} kills"
    summary = json.loads(summary_file(output).read_text())
    skipped = summary["shards_skipped"]

    ids = pq.ParquetDataset(output).read(columns=["clip_id", "error"])
    assert ids.num_rows == CLIPS
    assert len(set(ids["clip_id"].to_pylist())) == CLIPS
    assert ids["error"].null_count == CLIPS
    assert summary["clips"] + summary.get("clips_done_before", 0) == CLIPS
    assert skipped > 0, "finished shards must not be read again"
    assert f"{skipped} finished before and skipped" in text


def summary_file(output: Path) -> Path:
    return next(file for file in log_of(output).glob("*.json") if file.name != "table.json")
