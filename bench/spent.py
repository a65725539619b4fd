"""What a command spends: wall time, and the processor time of all processes that it started, Ray's too."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

_SUBREAPER = 36  # prctl: orphans become children of this process
_EVERY_S = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Spent:
    """Seconds. `cpu_s` counts user and system time, of each process up to 50 ms before its end."""

    wall_s: float
    cpu_s: float
    by_process: Mapping[str, float]


def spend(command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None) -> Spent:
    """Runs a command to its end, that of its last process.

    Raises:
        SystemExit: it failed; what it said is in `log`.
    """
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    found: dict[int, tuple[str, float]] = {}
    over = Event()
    watcher = Thread(target=_watch, args=(found, over))
    started = time.perf_counter()
    with log.open("w", encoding="utf-8") as said:
        running = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment)
        watcher.start()
        status = running.wait()
        wall_s = time.perf_counter() - started
    _reap()
    over.set()
    watcher.join()
    if status:
        raise SystemExit(f"exit status {status}: see {log}")
    names: dict[str, float] = {}
    for name, seconds in found.values():
        names[name] = names.get(name, 0.0) + seconds
    return Spent(wall_s, sum(names.values()), names)


def _reap() -> None:
    """Waits for the orphans."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def _watch(found: dict[int, tuple[str, float]], over: Event) -> None:
    """Keeps the last name and processor time of each descendant."""
    own = os.getpid()
    while not over.wait(_EVERY_S):
        parents: dict[int, int] = {}
        seen: dict[int, tuple[str, float]] = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                stat = Path("/proc", entry, "stat").read_text("utf-8", "replace")
                command = Path("/proc", entry, "cmdline").read_bytes()
            except OSError:  # it is gone
                continue
            fields = stat[stat.rindex(")") + 2 :].split()
            parents[int(entry)] = int(fields[1])
            seconds = (int(fields[11]) + int(fields[12])) / _TICKS
            seen[int(entry)] = (_name(command), seconds)
        for process in seen:
            above = process
            while above not in (0, own):
                above = parents.get(above, 0)
            if above == own and process != own:
                found[process] = seen[process]


def _name(command: bytes) -> str:
    """What a person calls a process: Ray's by their titles."""
    words = command.replace(b"\0", b" ").decode("utf-8", "replace").split()
    if not words:
        return "ended"
    if words[0].startswith("ray::"):
        return words[0]
    scripts = [word.rsplit("/", 1)[-1] for word in words[:4] if word.endswith(".py")]
    return scripts[0] if scripts else words[0].rsplit("/", 1)[-1]
