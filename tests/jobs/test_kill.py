"""Killed at random moments and started again each time, a job ends with what it would have written."""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import soundfile

from pipeline.storage import Storage, StorageOptions
from pipeline.table.ledger import Ledger
from tests.conftest import ROOT, SOAK
from tests.jobs.tables import assert_close, log_of, rows_of

SHARDS, CLIPS = 8, 40  # of each
SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT}
STOPPED = re.compile(r": stopped( after [\d,]+ clips)?; the same command goes on\n")
# How the processes of a job's cluster are titled; the first three are started again by Ray.
TITLES = {
    "a task": r"ray::(Read|Write|IDLE)",
    "the featurizer": r"ray::.*FeaturizeActor",
    "the model actor": r"ray::.*AnnotateActor",
    "the raylet": r"\S*/raylet ",
    "the GCS": r"\S*/gcs_server ",
}
TWENTY = [
    *("KILL", "KILL", "KILL", "KILL", "TERM", "TERM", "TERM", "INT", "INT", "INT"),
    *("a task", "a task", "a task", "the featurizer", "the featurizer", "the model actor", "the model actor"),
    *("the raylet", "the raylet", "the GCS"),
]
KILLS = TWENTY if SOAK else ["KILL", "the model actor", "KILL"]
LONGEST_S = 240.0  # of a start; one that takes longer hangs
# How soon a driver notices that its cluster is gone.
SOON = {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


def make_shard(file: Path, rng: random.Random) -> None:
    """Clips cut from the demo's longest."""
    sound, rate = soundfile.read(ROOT / "demo/audio/session.flac", dtype="int16")
    with tarfile.open(file, "w") as tar:
        for index in range(CLIPS):
            start = rng.randrange(len(sound) - rate)
            buffer = io.BytesIO()
            soundfile.write(buffer, sound[start : start + rate // 2], rate, format="WAV")
            member = tarfile.TarInfo(f"{index:05d}.wav")
            member.size = len(buffer.getvalue())
            tar.addfile(member, io.BytesIO(buffer.getvalue()))


class Start:
    """A job's command, with a cluster of its own."""

    def __init__(self, corpus: Path, output: Path, log: Path) -> None:
        told = ["--input", str(corpus), "--output", str(output), "--model", str(ROOT / "demo/checkpoint")]
        command = [sys.executable, str(ROOT / "jobs/transcribe.py"), *told, "--rows-per-file", "4"]
        environment = {**os.environ, **SOON, "OMP_NUM_THREADS": "1"}
        self._began, self._log, self._held = time.monotonic(), log, list[psutil.Process]()
        self._lock = log_of(output) / "lock.json"
        with log.open("w") as said:
            self._driver = subprocess.Popen(
                [*command, "--ray-address", "local"], stdout=said, stderr=said, env=environment, cwd=ROOT
            )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def said(self) -> str:
        return self._log.read_text()

    def goes_on(self, until: Callable[[], bool]) -> bool:
        """Waits for a condition; False if the job ends before."""
        while self._driver.poll() is None:
            if until():
                return True
            assert self.seconds < LONGEST_S, f"it hangs: {self.said()}"
            time.sleep(0.02)
        return False

    def strike(self, whom: str) -> bool:
        """Kills a process of the job; False if the job ends before there is one."""
        if whom in SIGNALS:
            # Before a job has read its options it has not begun, and Python ends it.
            if not self.goes_on(lambda: whom == "KILL" or self._holds_the_lock()):
                return False
            self._held = self._processes()
            self._driver.send_signal(SIGNALS[whom])
            return True
        return self.goes_on(lambda: self._kill_one(whom))

    def _holds_the_lock(self) -> bool:
        """The one before may have left its own."""
        with suppress(FileNotFoundError):
            return f'"pid": {self._driver.pid},' in self._lock.read_text()
        return False

    def _kill_one(self, whom: str) -> bool:
        self._held = self._processes()
        for process in self._held:
            with suppress(psutil.Error):
                if re.match(TITLES[whom], " ".join(process.cmdline())):
                    process.kill()
                    return True
        return False

    def _processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self._driver.pid).children(recursive=True)
        return []

    def end(self) -> int:
        """The exit status; nothing of its cluster outlives the test."""
        try:
            return self._driver.wait(max(1.0, LONGEST_S - self.seconds))
        finally:
            self._driver.kill()
            _, left = psutil.wait_procs(self._held, timeout=15)
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def assert_whole(output: Path) -> None:
    """What lies there has records, and the log holds nothing of the starts that were killed."""
    ledger = Ledger(str(output), Storage(StorageOptions()))
    assert sorted(os.listdir(output)) == [record.file for record in ledger.files()]
    names = [str(file.relative_to(log_of(output))) for file in log_of(output).rglob("*") if file.is_file()]
    runs = ledger.plans.run_ids()
    known = {f"{folder}{run}.json{line}" for run in runs for folder, line in (("", ""), ("files/", "l"))}
    assert set(names) - known - {f"shards/{run}.jsonl" for run in runs} == {"table.json"}
    assert set(runs) == ledger.closed_runs()


@pytest.mark.usefixtures("own_cluster")
def test_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    rng = random.Random(20)
    later, corpus, output = (tmp_path / name for name in ("later", "corpus", "out"))
    for folder in (later, corpus):
        folder.mkdir()
    for number in range(SHARDS):
        make_shard(later / f"{number}.tar", rng)
    undisturbed = Start(later, tmp_path / "undisturbed", tmp_path / "log")
    assert undisturbed.end() == 0, undisturbed.said()
    usual_s = undisturbed.seconds
    waiting = sorted(later.iterdir())

    def grow(shards: int) -> None:
        for shard in [waiting.pop(0) for _ in range(min(shards, len(waiting)))]:
            shutil.copy(shard, corpus)

    grow(SHARDS // 2)
    kills = rng.sample(KILLS, len(KILLS))
    while kills:
        start, struck = Start(corpus, output, tmp_path / "log"), list[str]()
        while whom := next((one for one in kills if one not in struck), None):
            moment = start.seconds + rng.uniform(0.0, 0.3 if struck else 0.9) * usual_s
            if not (
                start.goes_on(lambda start=start, then=moment: start.seconds > then) and start.strike(whom)
            ):
                break
            print(f"{whom} after {start.seconds:.1f} s")
            kills.remove(whom)
            struck.append(whom)
            if whom not in list(TITLES)[:3]:
                break
        status, last = start.end(), struck[-1] if struck else ""
        print(f"status {status} after {start.seconds:.1f} s")
        if status == 0:
            grow(1)
        elif last in SIGNALS:
            assert status == (-9 if last == "KILL" else 128 + SIGNALS[last]), start.said()
            assert last == "KILL" or STOPPED.search(start.said()), start.said()
        else:
            assert last in ("the raylet", "the GCS"), start.said()
    grow(SHARDS)
    for _ in range(2):  # the second closes what the first had no reason to look at
        start = Start(corpus, output, tmp_path / "log")
        assert start.end() == 0, start.said()
    assert_whole(output)
    rows, expected = rows_of(output), rows_of(tmp_path / "undisturbed")
    assert rows.keys() == expected.keys()
    for clip_id, row in rows.items():
        del row["encoder_s"], expected[clip_id]["encoder_s"]
        row["shard"] = row["shard"].replace(str(corpus), str(later))
        assert_close(row, expected[clip_id], clip_id)
