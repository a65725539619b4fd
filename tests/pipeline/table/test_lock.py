"""One job at a time on a table: the second is told who is there, and what a dead one held is taken over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from unittest.mock import Mock

import pytest

from pipeline.corpus.lanes import Lane, may_meet
from pipeline.errors import JobError, TableInUseError
from pipeline.storage import Storage
from pipeline.table import lock as module
from pipeline.table.lock import Holder, Lock, read_holder
from pipeline.table.log.place import log_home
from tests.pipeline.table.outputs import STORAGE

HOLD = """
import sys, time
from pipeline.storage import Storage, StorageOptions
from pipeline.table.lock import Lock
Lock.take(*sys.argv[1:], Storage(StorageOptions()))
print("held", flush=True)
time.sleep(60)
"""


def home_of(output: str) -> str:
    return log_home(output, STORAGE)


def lock_uri(output: str, suffix: str = "") -> str:
    return f"{home_of(output)}/lock{suffix}.json"


def take(output: str, lane: Lane | None = None) -> Lock:
    return Lock.take(output, home_of(output), STORAGE, lane)


@pytest.fixture
def output(tmp_path: Path) -> str:
    return str(tmp_path / "out")


def elsewhere(output: str, seconds: float, suffix: str = "") -> Holder:
    """A lock that another machine holds, with a last sign of life so long ago."""
    then = datetime.now(UTC) - timedelta(seconds=seconds)
    holder = replace(
        Holder.this_process(), owner="eve", host="far", token="theirs", heartbeat=then.isoformat()
    )
    STORAGE.write_bytes(lock_uri(output, suffix), holder.to_json())
    return holder


def test_a_second_job_is_told_who_is_there(output: str) -> None:
    first = take(output)
    before = Path(first.uri).read_bytes()
    with pytest.raises(JobError, match=rf"is being written by .* \(process {os.getpid()}\) since 20"):
        take(output)
    assert Path(first.uri).read_bytes() == before
    first.release()
    take(output).release()


@pytest.mark.parametrize("there", [True, False])
def test_a_job_that_wrote_nothing_leaves_nothing(output: str, there: bool) -> None:
    if there:
        Path(output).mkdir()
    take(output).release()
    assert Path(output).exists() == there
    assert not Path(home_of(output)).exists()


def test_what_was_written_stays(output: str) -> None:
    lock = take(output)
    STORAGE.write_bytes(f"{home_of(output)}/table.json", b"{}")
    lock.release()
    assert os.listdir(home_of(output)) == ["table.json"]


def test_a_killed_job_holds_nothing(output: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, output, home_of(output)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(JobError, match=f"process {holder.pid}"):
            take(output)
        holder.send_signal(signal.SIGKILL)
        time.sleep(0.2)  # dead, and nobody asked for its status yet
        lock = take(output)
        holder.wait()
    lock.check()
    assert os.listdir(home_of(output)) == ["lock.json"]
    lock.release()


def test_a_number_that_another_process_has_now_holds_nothing(output: str) -> None:
    STORAGE.write_bytes(
        lock_uri(output), replace(Holder.this_process(), process_started="before", token="old").to_json()
    )
    take(output).release()


def test_a_job_of_another_machine_is_gone_when_it_gave_no_sign_of_life(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_S", 0.0)
    elsewhere(output, 60)
    with pytest.raises(JobError, match="written by eve on far"):
        take(output)
    elsewhere(output, 150)
    take(output).release()


def test_a_heartbeat_in_the_future_is_watched_like_an_old_one(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_S", 0.0)
    elsewhere(output, -60)
    with pytest.raises(JobError, match="written by eve on far"):
        take(output)
    elsewhere(output, -10_000)
    take(output).release()


def test_stale_lanes_are_watched_at_once_and_under_a_heartbeat(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.01)
    ticks = iter(range(10**9))
    monkeypatch.setattr(module, "_now", lambda: f"2026-01-01T00:00:00.{next(ticks):06}+00:00")
    lanes = [elsewhere(output, 1000, f"-{number}of16") for number in range(1, 17)]
    watched = []

    def watch(seconds: float) -> None:
        watched.append(seconds)
        ours = read_holder(lock_uri(output), STORAGE)
        assert any(
            read_holder(lock_uri(output), STORAGE) != ours or threading.Event().wait(0.01)
            for _ in range(1000)
        )

    monkeypatch.setattr(module, "time", Mock(sleep=watch))
    lock = take(output)
    assert (len(lanes), watched) == (16, [module.WATCH_S])
    lock.release()
    assert not Path(home_of(output)).exists()


def test_of_many_stale_lanes_one_lives(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 3):
        elsewhere(output, 1000, f"-{number}of3")
    before = os.listdir(home_of(output))
    monkeypatch.setattr(time, "sleep", lambda _: elsewhere(output, 990, "-2of3"))
    with pytest.raises(TableInUseError, match="written by eve on far"):
        take(output)
    assert os.listdir(home_of(output)) == before


def test_an_old_heartbeat_that_goes_on_is_a_wrong_clock(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(output, 1000)
    monkeypatch.setattr(time, "sleep", lambda _: elsewhere(output, 990))
    with pytest.raises(JobError, match="written by eve on far"):
        take(output)


def test_of_many_that_find_a_stale_lock_one_gets_it(output: str) -> None:
    stale = replace(Holder.this_process(), process_started="before", token="old")

    def try_to_take(_: int) -> Lock | None:
        try:
            return take(output)
        except JobError:
            return None

    for _ in range(5):
        STORAGE.write_bytes(lock_uri(output), stale.to_json())
        with ThreadPoolExecutor(8) as threads:
            (lock,) = [lock for lock in threads.map(try_to_take, range(8)) if lock is not None]
        lock.check()
        lock.release()


def test_who_comes_late_to_a_stale_lock_leaves_it_to_the_new_holder(output: str) -> None:
    stale = replace(Holder.this_process(), process_started="before", token="old")
    late = Lock(output, home_of(output), STORAGE, None)
    STORAGE.write_bytes(lock_uri(output), stale.to_json())
    lock = take(output)
    with pytest.raises(JobError, match="is being written by"):
        late._take_over(stale)
    lock.check()
    lock.release()


@pytest.mark.parametrize("other", [True, False])
def test_a_stale_lock_that_vanishes_is_not_written_over(
    output: str, monkeypatch: pytest.MonkeyPatch, other: bool
) -> None:
    stale = replace(Holder.this_process(), process_started="before", token="old")
    STORAGE.write_bytes(lock_uri(output), stale.to_json())
    late = Lock(output, home_of(output), STORAGE, None)
    looked = module.read_holder

    def read(uri: str, storage: Storage) -> Holder | None:
        if uri == lock_uri(output) and looked(uri, storage) == stale:
            storage.remove(uri)
            if other:
                elsewhere(output, 0)
            return None
        return looked(uri, storage)

    monkeypatch.setattr(module, "read_holder", read)
    if other:
        with pytest.raises(JobError, match="another job just took this table; try again"):
            late._take_over(stale)
    else:
        late._take_over(stale)
    held = looked(lock_uri(output), STORAGE)
    assert held is not None
    assert held.token == ("theirs" if other else late.token)
    assert os.listdir(home_of(output)) == ["lock.json"]


def test_a_process_that_goes_while_it_is_looked_at(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def read_text(path: Path) -> str:
        if path.name == "stat" and path.parent.name == "1234567":
            raise ProcessLookupError
        return read(path)

    monkeypatch.setattr(Path, "read_text", read_text)
    assert replace(Holder.this_process(), pid=1234567).is_gone()


def test_another_users_process_is_not_gone_because_proc_hides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc mounted with hidepid=2 shows a user only his own processes."""

    def kill(pid: int, signal: int) -> None:
        raise PermissionError

    holder = Holder.this_process()
    monkeypatch.setattr("pipeline.table.lock._process_start", lambda pid: None)
    monkeypatch.setattr(os, "kill", kill)
    assert holder.is_gone() is False


def killed_while_taking_over(output: str) -> None:
    """A dead job's lock, its dead heir, the dead heir of that one, and what an earlier heir left."""
    for name in ("lock", "lock-after-old", "lock-after-old-after-heir", "lock-after-older"):
        token = {"lock": "old", "lock-after-old": "heir"}.get(name, "last")
        dead = replace(Holder.this_process(), process_started="before", token=token)
        STORAGE.write_bytes(f"{home_of(output)}/{name}.json", dead.to_json())


def test_killed_while_taking_over(output: str) -> None:
    killed_while_taking_over(output)
    lock = take(output)
    assert os.listdir(home_of(output)) == ["lock.json"]
    lock.release()


def test_of_many_that_find_a_dead_heir_one_takes_over(output: str) -> None:
    killed_while_taking_over(output)

    def attempt(_: int) -> Lock | None:
        try:
            return take(output)
        except TableInUseError:
            return None

    with ThreadPoolExecutor(8) as threads:
        (lock,) = [held for held in threads.map(attempt, range(8)) if held is not None]
    assert os.listdir(home_of(output)) == ["lock.json"]
    lock.check()
    lock.release()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_heartbeat_goes_on_until_the_lock_is_lost(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.01)
    ticks = iter(range(10**9))
    monkeypatch.setattr(module, "_now", lambda: f"2026-01-01T00:00:00.{next(ticks):06}+00:00")
    lock = take(output)
    first = read_holder(lock.uri, STORAGE)
    wait_for(lambda: read_holder(lock.uri, STORAGE) != first)
    with lock._renewing:
        theirs = elsewhere(output, 0)
    with pytest.raises(JobError, match=r"was taken over by eve on far .*stops before it writes"):
        lock.check()
    time.sleep(0.1)
    assert read_holder(lock.uri, STORAGE) == theirs
    lock.release()
    assert read_holder(lock.uri, STORAGE) == theirs


def test_lanes_of_one_number_go_side_by_side(output: str) -> None:
    locks = [take(output, Lane(number, 3)) for number in (1, 2, 3)]
    assert sorted(os.listdir(home_of(output))) == [f"lock-{number}of3.json" for number in (1, 2, 3)]
    for lane in (None, Lane(2, 3), Lane(2, 4)):
        with pytest.raises(TableInUseError, match="is being written by"):
            take(output, lane)
    for lock in locks:
        lock.check()
        lock.release()
    take(output).release()


def test_a_lane_waits_for_a_job_on_the_whole_table(output: str) -> None:
    whole = take(output)
    with pytest.raises(TableInUseError, match="is being written by"):
        take(output, Lane(1, 2))
    assert os.listdir(home_of(output)) == ["lock.json"]
    whole.release()


def test_a_dead_lane_is_ended_by_a_job_that_shares_shards_with_it(output: str) -> None:
    stale = replace(Holder.this_process(), process_started="before", token="old")
    STORAGE.write_bytes(lock_uri(output, "-1of2"), stale.to_json())
    take(output, Lane(2, 2)).release()  # not its business
    assert os.listdir(home_of(output)) == ["lock-1of2.json"]
    lock = take(output, Lane(1, 3))
    assert os.listdir(home_of(output)) == ["lock-1of3.json"]
    lock.release()


def test_of_all_kinds_of_jobs_at_once_no_two_share_shards(output: str) -> None:
    lanes = [None, None, Lane(1, 2), Lane(2, 2), Lane(1, 2), Lane(1, 3), Lane(2, 3), Lane(3, 3)]

    def try_to_take(lane: Lane | None) -> Lock | None:
        try:
            return take(output, lane)
        except TableInUseError:
            return None

    for _ in range(5):
        with ThreadPoolExecutor(8) as threads:
            held = [lock for lock in threads.map(try_to_take, lanes) if lock is not None]
        assert not any(may_meet(one.lane, other.lane) for one, other in combinations(held, 2))
        for lock in held:
            lock.check()
            lock.release()


HELD = asdict(Holder.this_process())


@pytest.mark.parametrize(
    "held",
    [
        b"",
        b"\xff",
        b"[1]",
        b'{"who": "me"}',
        *(json.dumps({**HELD, "heartbeat": beat}).encode() for beat in ("soon", 5, None, "2026-01-01")),
        *(json.dumps({**HELD, "pid": pid}).encode() for pid in (None, "one", 0, -1, 10**30)),
        *(json.dumps({**HELD, "token": token}).encode() for token in (5, "../token")),
        json.dumps({**HELD, "host": []}).encode(),
        b"[" * 100_000,
    ],
)
def test_what_is_no_lock_is_named(output: str, held: bytes) -> None:
    STORAGE.write_bytes(lock_uri(output), held)
    with pytest.raises(JobError, match=r"lock\.json is not a lock that this version can read"):
        take(output)
