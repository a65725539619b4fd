"""Peak memory of the driver and of each kind of worker, as the corpus grows.

    python -m bench.memory_flat --date 2026-11-25 --output bench/results/memory-flat.md

Each size is transcribed by `jobs/transcribe.py` in a process of its own with a Ray cluster of its own.
Memory is anonymous memory: heap and stacks, without pages of files and of the object store, whose size is
set. It is sampled with pauses of 20 ms; the largest process of each kind counts.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil
import soundfile

from bench.machine import describe

ROOT = Path(__file__).resolve().parent.parent
CLIPS_IN_A_SHARD = 500
KINDS = {"Featurizer": "featurize", "Annotator": "annotate", "Read": "read", "Write": "write"}


def make_corpus(folder: Path, clips: int) -> None:
    """Clips of 0.5 to 1.5 s, cut from the demo's recording, in tar shards."""
    sound, rate = soundfile.read(ROOT / "demo/audio/session.flac", dtype="int16")
    rng = np.random.default_rng(0)
    folder.mkdir()
    for shard in range(-(-clips // CLIPS_IN_A_SHARD)):
        with tarfile.open(folder / f"shard-{shard:05}.tar", "w") as tar:
            for index in range(min(CLIPS_IN_A_SHARD, clips - shard * CLIPS_IN_A_SHARD)):
                length = int(rng.uniform(0.5, 1.5) * rate)
                start = int(rng.integers(0, len(sound) - length))
                buffer = io.BytesIO()
                soundfile.write(buffer, sound[start : start + length], rate, format="FLAC")
                member = tarfile.TarInfo(f"{index:05}.flac")
                member.size = len(buffer.getvalue())
                tar.addfile(member, io.BytesIO(buffer.getvalue()))


def kind_of(process: psutil.Process, driver: int) -> str | None:
    if process.pid == driver:
        return "driver"
    title = " ".join(process.cmdline())
    if not title.startswith("ray::"):
        return None
    return next((kind for mark, kind in KINDS.items() if mark in title), None)


def anonymous_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024


def peaks(clips: int) -> tuple[dict[str, float], float]:
    """MiB of each kind of process at its largest, and the seconds that the job took."""
    with tempfile.TemporaryDirectory() as work:
        home = Path(work)
        make_corpus(home / "corpus", clips)
        command = [sys.executable, "jobs/transcribe.py", "--input", str(home / "corpus")]
        command += ["--output", str(home / "out"), "--model", "demo/checkpoint", "--ray-address", "local"]
        started = time.monotonic()
        with (home / "log").open("w") as log:
            job = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
            found: dict[str, float] = defaultdict(float)
            while job.poll() is None:
                for process in [psutil.Process(job.pid), *psutil.Process(job.pid).children(recursive=True)]:
                    try:
                        kind = kind_of(process, job.pid)
                        if kind is not None:
                            found[kind] = max(found[kind], anonymous_mib(process.pid))
                    except (psutil.Error, OSError):
                        continue
                time.sleep(0.02)
        seconds = time.monotonic() - started
        text = (home / "log").read_text()
        if job.returncode or f"{clips} ({clips} annotated)" not in text:
            raise RuntimeError(text[-3000:])
    return dict(found), seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, nargs="+", default=[1000, 5000, 20000])
    parser.add_argument("--date", required=True)
    parser.add_argument("--output", type=Path, required=True, help="markdown file")
    args = parser.parse_args()
    kinds = ["driver", *sorted(KINDS.values())]
    lines = ["# Peak memory as the corpus grows", "", describe(args.date), ""]
    lines += [
        "Anonymous memory in MiB of the largest process of each kind; clips of 0.5 to 1.5 s, 500 in a tar.",
        "",
    ]
    lines += [f"| clips | {' | '.join(kinds)} | wall time |", "| --- " * (len(kinds) + 2) + "|"]
    for clips in args.clips:
        found, seconds = peaks(clips)
        cells = [f"{found[kind]:.0f}" if kind in found else "(not seen)" for kind in kinds]
        lines.append(f"| {clips:,} | {' | '.join(cells)} | {seconds:.0f} s |")
        print(lines[-1], flush=True)
    args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
