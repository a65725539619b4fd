"""One job at a time on a table, or on a lane of it: a file in the table's log says who writes it.

Who creates `lock.json`, or of a lane `lock-3of16.json`, holds the lock and renews its heartbeat. It is stale
at once where its process is gone from this machine, else when its heartbeat is far from now and stands still
while we look. To take it over, a job first creates a file that the stale lock's token names: two that find
the same stale lock cannot both. Jobs on different locks that may have shards in common look for each other
once they hold their own: of two that start at once both may step back, never both go on.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import re
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ConfigDict, with_config

from pipeline import strict_json
from pipeline.corpus.lanes import Lane, lane_named, lane_suffix, may_meet
from pipeline.errors import JobError, TableInUseError
from pipeline.storage import Storage, StorageError, join, name_of

BEAT_S = 15.0
STALE_S = 120.0
WATCH_S = 2 * BEAT_S  # a heartbeat far from now may be the work of a clock that goes wrong
_LOG = logging.getLogger(__name__)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Holder:
    """Who holds a lock: a process, told apart from later ones of the same number by its start."""

    owner: str
    host: str
    machine: str
    pid: int
    process_started: str
    started: str
    heartbeat: str
    token: str

    @classmethod
    def this_process(cls) -> Holder:
        now, pid = _now(), os.getpid()
        process = _user(), socket.gethostname(), _machine(), pid, _process_start(pid) or ""
        return cls(*process, started=now, heartbeat=now, token=uuid.uuid4().hex)

    @classmethod
    def from_json(cls, data: bytes) -> Holder:
        """Raises ValueError for what is no lock."""
        holder = strict_json.loads(data, cls)
        if datetime.fromisoformat(holder.heartbeat).tzinfo is None:
            raise ValueError("a heartbeat without a time zone")
        if "/" in holder.token or not 0 < holder.pid < 1 << 31:
            raise ValueError("a token that names no file, or the number of no process")
        return holder

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    def is_gone(self) -> bool:
        """Whether the process was one of this machine and is no more."""
        if (self.host, self.machine) != (socket.gethostname(), _machine()):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's, of whom /proc may tell nothing: its heartbeat decides
            return False
        return _process_start(self.pid) != self.process_started

    def is_silent(self) -> bool:
        """Whether its heartbeat is far from now: long ago, or in a future that a wrong clock told."""
        age = datetime.now(UTC) - datetime.fromisoformat(self.heartbeat)
        return abs(age.total_seconds()) > STALE_S


class Lock:
    """The lock of one table or lane, held from `take` to `release`.

    Attributes:
        uri, token: with them write tasks look whether it still is ours (see `check_lock`).
    """

    def __init__(self, output: str, home: str, storage: Storage, lane: Lane | None) -> None:
        self.output, self.home, self.storage, self.lane = output, home, storage, lane
        self._holder = Holder.this_process()
        self.uri, self.token = join(home, f"lock{lane_suffix(lane)}.json"), self._holder.token
        self._over, self._renewing = threading.Event(), threading.Lock()
        self._made_output = not storage.exists(output)

    @classmethod
    def take(cls, output: str, home: str, storage: Storage, lane: Lane | None = None) -> Lock:
        """Raises TableInUseError, which says who holds it, where another job works on the table."""
        lock = cls(output, home, storage, lane)
        while not storage.create(lock.uri, lock._holder.to_json()):
            held = read_holder(lock.uri, storage)
            if held is None:
                continue  # released between the two looks
            if _who_lives({lock.uri: held}, storage):
                raise TableInUseError(_refusal(output, held))
            lock._take_over(held)
            break
        threading.Thread(target=lock._beat, name="table lock", daemon=True).start()
        try:
            lock._meet_others()
        except BaseException:
            lock.release()
            raise
        return lock

    def _meet_others(self) -> None:
        """Looks for jobs on other lanes, or on the whole table, with which this one may share shards. Removes
        what dead heirs left of the lock that is ours now."""
        others = {}
        for uri in self.storage.list_files(self.home):
            if uri.startswith(_heir(self.uri, "")) and self.token not in uri:
                self.storage.remove(uri)
            name = name_of(uri).removesuffix(".json")
            if uri == self.uri or not re.fullmatch(r"lock(-\d+of\d+)?", name):
                continue
            held = read_holder(uri, self.storage) if may_meet(self.lane, lane_named(name)) else None
            if held is not None:
                others[uri] = held
        if living := _who_lives(others, self.storage):
            raise TableInUseError(_refusal(self.output, living))
        for uri, held in others.items():
            self._end(uri, held)

    def check(self) -> None:
        """Raises JobError where the lock is not ours any more."""
        check_lock(self.uri, self.token, self.storage)

    def release(self) -> None:
        """Removes the lock if it is ours, and folders that hold nothing."""
        self._over.set()
        with self._renewing:
            held = read_holder(self.uri, self.storage)
            if held is None or held.token != self.token:
                return
            self.storage.remove(self.uri)
        self.storage.remove_empty_folder(self.home)
        if self._made_output:
            self.storage.remove_empty_folder(self.output)

    def _take_over(self, stale: Holder) -> None:
        self._inherit(self.uri, stale)
        self.check()
        _LOG.warning("took over %s from %s, which is gone", self.output, _who(stale))

    def _inherit(self, uri: str, stale: Holder) -> None:
        """Puts our name in the place of a stale one."""
        with self._as_heir(uri, stale):
            held = read_holder(uri, self.storage)
            if held is not None and held.token == stale.token:
                self.storage.write_bytes(uri, self._holder.to_json())
            elif held is not None:
                raise TableInUseError(_refusal(self.output, held))
            elif not self.storage.create(uri, self._holder.to_json()):  # removed, and made by another
                raise TableInUseError(f"--output {self.output}: another job just took this table; try again.")

    def _end(self, uri: str, stale: Holder) -> None:
        """Removes the stale lock of another lane, whose job, should it come back, may write no more."""
        with self._as_heir(uri, stale):
            held = read_holder(uri, self.storage)
            if held is not None and held.token != stale.token:
                raise TableInUseError(_refusal(self.output, held))
            self.storage.remove(uri)
        _LOG.warning("ended the lock of %s on %s, which is gone", _who(stale), self.output)

    @contextmanager
    def _as_heir(self, uri: str, stale: Holder) -> Iterator[None]:
        """Of several that find the same stale lock one goes on. An heir that died is inherited from too."""
        heir = _heir(uri, stale.token) + ".json"
        if not self.storage.create(heir, self._holder.to_json()):
            other = read_holder(heir, self.storage)
            if other is None or _who_lives({heir: other}, self.storage):
                raise TableInUseError(f"--output {self.output}: another job is taking it over; try again.")
            self._inherit(heir, other)
        try:
            yield
        finally:
            self.storage.remove(heir)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            try:
                with self._renewing:
                    if self._over.is_set() or not self._renew():
                        return  # whoever works under it finds out by `check`
            except (StorageError, JobError) as problem:
                _LOG.warning("the lock of %s could not be renewed: %s", self.output, problem)

    def _renew(self) -> bool:
        held = read_holder(self.uri, self.storage)
        if held is None or held.token != self.token:
            return False
        self.storage.write_bytes(self.uri, replace(self._holder, heartbeat=_now()).to_json())
        return True


def check_lock(uri: str, token: str, storage: Storage) -> None:
    """Raises JobError where the lock at `uri` is not that of `token`."""
    held = read_holder(uri, storage)
    if held is None or held.token != token:
        by = "was removed" if held is None else f"was taken over by {_who(held)}"
        raise JobError(f"the lock {uri} {by}: this run stops before it writes any more.")


def read_holder(uri: str, storage: Storage) -> Holder | None:
    """Who holds the lock; None where nobody does."""
    data = storage.read_bytes_or_none(uri)
    try:
        return None if data is None else Holder.from_json(data)
    except ValueError as problem:
        raise JobError(
            f"{uri} is not a lock that this version can read; if no job works on the table, delete the file."
        ) from problem


def _heir(uri: str, token: str) -> str:
    """How the names of files begin that heirs of a lock create."""
    return f"{uri.removesuffix('.json')}-after-{token}"


def _who_lives(held: Mapping[str, Holder], storage: Storage) -> Holder | None:
    """One of these, by their locks, that is not dead; None where all locks are stale."""
    silent = {}
    for uri, holder in held.items():
        if holder.is_gone():
            continue
        if not holder.is_silent():
            return holder
        silent[uri] = holder
        _LOG.warning("%s was last renewed at %s; watching it for %.0f s", uri, holder.heartbeat, WATCH_S)
    if silent:
        time.sleep(WATCH_S)
    return next((holder for uri, holder in silent.items() if read_holder(uri, storage) != holder), None)


def _refusal(output: str, held: Holder) -> str:
    return (
        f"--output {output} is being written by {_who(held)}.\n"
        "Wait until that job is over, or write to another output. If it died on another machine, the table "
        f"is free {STALE_S / 60:.0f} minutes after its last sign of life, which was at {held.heartbeat}."
    )


def _who(held: Holder) -> str:
    return f"{held.owner} on {held.host} (process {held.pid}) since {held.started}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a number without a name, as containers have
        return str(os.getuid())


def _machine() -> str:
    """Where a process number means the same: a boot of a machine, and a namespace in containers."""
    boot = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        boot += f" {os.readlink('/proc/self/ns/pid')}"
    return boot


def _process_start(pid: int) -> str | None:
    """When a process of this machine started, in the machine's own count; None where there is none."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[-1].split()
        return None if state in "ZX" else rest[18]
    except (FileNotFoundError, ProcessLookupError):  # it is gone, or goes while we read
        if Path("/proc/self/stat").exists():
            return None
    told = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or None
