"""What starting costs where much is done: a table of many shards and clips, made up without any audio.

    python -m bench.scale --date 2026-11-27 --output bench/results/scale.md
    python -m bench.scale --date 2026-11-27 --jobs --output bench/results/scale-jobs.md

A table is written as write tasks write it, through the table's own lock, plans, writer and records. Then each
start is timed from the listed input to the work that is left, in a process of its own, with its peak memory.
All is done at two sizes, one ten times the other, to see what grows with what is there.

With `--jobs`: whole jobs on real tar shards of 250 clips and of one, and again when nothing is new.
"""

from __future__ import annotations

import argparse
import io
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import soundfile

from pipeline.corpus.clips import Shard
from pipeline.corpus.parts import Part
from pipeline.corpus.readers import READERS
from pipeline.schema import ERROR
from pipeline.storage import Storage, StorageOptions
from pipeline.table.ledger import Ledger
from pipeline.table.log.plans import Work, write_shard_counts
from pipeline.table.retry import failed_clips

SCHEMA = pa.schema(
    [("clip_id", pa.string()), ("shard", pa.string()), ("error", ERROR), ("text", pa.string())]
)
UNDECODABLE = {"stage": "decode", "code": "undecodable", "message": "no decoder accepts the bytes"}
FILES, CLIPS_IN_A_SHARD, FAILING = 200, 100, 1000  # one clip of so many is an error row
ROOT = Path(__file__).resolve().parent.parent
STORAGE = Storage(StorageOptions())


@dataclass(frozen=True)
class Measured:
    seconds: float
    peak_mib: float
    left: str


def shards(count: int, first: int = 0) -> list[Shard]:
    numbers = range(first, first + count)
    return [
        Shard(f"s3://corpus/train/shard-{n:06}.tar", f"shard-{n:06}.tar", "tar", 1 << 20, "1")
        for n in numbers
    ]


def rows(of: list[Shard]) -> Iterator[pa.Table]:
    for number, shard in enumerate(of):
        ids = [f"{shard.name}#{key:05}" for key in range(CLIPS_IN_A_SHARD)]
        failed = [
            UNDECODABLE if (number * CLIPS_IN_A_SHARD + key) % FAILING == 0 else None
            for key in range(len(ids))
        ]
        yield pa.table(
            {
                "clip_id": ids,
                "shard": [shard.uri] * len(ids),
                "error": pa.array(failed, ERROR),
                "text": ["what was said in this clip, in about so many words"] * len(ids),
            },
            schema=SCHEMA,
        )


def write_run(output: str, run_id: str, of: list[Shard], *, upto: float = 1.0) -> None:
    """A run over these shards; one that was killed if it came only so far."""
    ledger = Ledger(output, STORAGE)
    with ledger.locked():
        ledger.open()
        if ledger.identity() is None:
            ledger.declare({"models": {"transcribe": "sha256:0"}})
        ledger.begin(Work(run_id, False, of, {}, 0))
        writer = ledger.writer(run_id, SCHEMA)
        done = of[: round(len(of) * upto)]
        size = -(-len(of) // FILES)
        for index, start in enumerate(range(0, len(done), size)):
            writer.write(rows(done[start : start + size]), index)
        folder = ledger.plans.shard_counts_uri(run_id)
        for shard in done:
            write_shard_counts(STORAGE, folder, Part(shard, READERS["tar"]), CLIPS_IN_A_SHARD, 0)
        if upto == 1.0:
            ledger.finish(run_id, {"run_id": run_id})


def start(output: str, of: list[Shard], retry: bool = False) -> Measured:
    """From the lock to the work that is left, as a job does it."""
    began = time.perf_counter()
    ledger = Ledger(output, STORAGE)
    with ledger.locked():
        ledger.open()
        ledger.known_names()
        failed = failed_clips(ledger, of, None, undelivered=not retry)
        work = ledger.plan(of, "run9", failed=failed)
    left = f"{len(work.shards)} shards, {work.clips_done} of their clips done"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(time.perf_counter() - began, peak, left)


def alone(work: Callable[[], Measured]) -> Measured:
    """In a process of its own, whose peak memory is that of this work and of the imports."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work).result()


def measure(count: int, folder: Path) -> dict[str, Measured]:
    output, there = str(folder / "table"), shards(count)
    write_run(output, "run1", there)
    changed = [replace(there[0], version="2"), *there[1:]]
    new = shards(100, count)
    results = {
        "nothing new": alone(partial(start, output, there)),
        "one changed shard": alone(partial(start, output, changed)),
        "100 new shards": alone(partial(start, output, [*there, *new])),
        "errors again": alone(partial(start, output, there, True)),
    }
    write_run(output, "run2", new, upto=0.505)
    results["100 new shards, killed half-way"] = alone(partial(start, output, [*there, *new]))
    return results


def table(sizes: dict[int, dict[str, Measured]]) -> Iterator[str]:
    yield "| start | shards in the table | clips | seconds | peak memory | left to do |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name in next(iter(sizes.values())):
        for count, results in sizes.items():
            found = results[name]
            yield (
                f"| {name} | {count:,} | {count * CLIPS_IN_A_SHARD:,} | {found.seconds:.2f} | "
                f"{found.peak_mib:.0f} MiB | {found.left} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--date", required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--jobs", action="store_true")
    given = parser.parse_args()
    if given.jobs:
        finish(given, list(jobs(given.shards)), "Many small shards")
        return
    sizes = {}
    for count in (given.shards // 10, given.shards):
        with tempfile.TemporaryDirectory() as folder:
            sizes[count] = measure(count, Path(folder))
    finish(given, list(table(sizes)), "What a start costs")


def make_tars(folder: Path, clips: int, in_a_shard: int) -> None:
    sound, rate = soundfile.read(ROOT / "demo/audio/session.flac", dtype="int16")
    buffer = io.BytesIO()
    soundfile.write(buffer, sound[: rate * 44 // 100], rate, format="WAV")
    folder.mkdir()
    for number in range(clips // in_a_shard):
        with tarfile.open(folder / f"{number:05}.tar", "w") as tar:
            for key in range(in_a_shard):
                member = tarfile.TarInfo(f"{key:03}.wav")
                member.size = len(buffer.getvalue())
                tar.addfile(member, io.BytesIO(buffer.getvalue()))


def jobs(clips: int) -> Iterator[str]:
    yield "| shards | clips in each | seconds | seconds when nothing is new |"
    yield "| --- | --- | --- | --- |"
    with tempfile.TemporaryDirectory() as home:
        for in_a_shard in (250, 1):
            corpus, output = Path(home, f"in-{in_a_shard}"), Path(home, f"out-{in_a_shard}")
            make_tars(corpus, clips, in_a_shard)
            paths = ["--input", corpus, "--output", output, "--model", ROOT / "demo" / "checkpoint"]
            command = list(map(str, [sys.executable, ROOT / "jobs" / "transcribe.py", *paths]))
            seconds = []
            for _ in range(2):
                began = time.perf_counter()
                subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
                seconds.append(time.perf_counter() - began)
            yield f"| {clips // in_a_shard:,} | {in_a_shard} | {seconds[0]:.0f} | {seconds[1]:.1f} |"


def finish(given: argparse.Namespace, results: list[str], title: str) -> None:
    from bench.machine import describe  # torch, which no start needs

    command = f"python -m bench.scale --date {given.date} --shards {given.shards}{' --jobs' * given.jobs}"
    text = "\n".join([describe(given.date), "", f"`{command}`, local disk", "", *results]) + "\n"
    print(text)
    if given.output:
        given.output.write_text(f"# {title}\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
