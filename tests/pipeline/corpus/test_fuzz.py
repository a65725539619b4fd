"""Damaged copies of real files: nothing crashes, nothing hangs, and no readable clip is lost.

A clip of a damaged file counts as readable when none of its bytes were touched and they can still be found:

- a loose file: when it is whole under another audio file's extension;
- a tar shard: its member, the headers of it among its bytes, lies before the cut; damage in front of it does
  not matter, for every header has a checksum and the next sound one is looked for;
- a compressed tar shard: the member ends before what the stream yields first goes wrong, by the 10 KiB
  that are decompressed at a time;
- a Parquet shard: the pages of its row group and the footer;
- a manifest: its line, and the line breaks around it.

Whatever is still known to have been a clip has a row: a tar sample with one sound header, a row that a sound
footer counts, a line that is not empty.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.parts import split
from pipeline.corpus.readers import READERS
from pipeline.errors import Code, JobError
from tests.conftest import SOAK
from tests.pipeline.corpus.damage import (
    DEMO,
    ROOT,
    Case,
    compressed,
    copies,
    loose,
    manifest,
    parquet,
    short_clips,
    tar,
)
from tests.pipeline.corpus.fuzz_child import STORAGE

MANY = 4 if SOAK else 1
CASES_IN_A_CHILD = 125
CHILD_SECONDS = 300
NEIGHBOUR = "neighbour.wav"  # a sound file beside each damaged one
CODES = {code.value for code in Code}


def run_children(cases: list[Case], folder: Path) -> Iterator[tuple[Case, list[dict[str, Any]]]]:
    """Each case with the rows that came of it; a child that dies or hangs fails the test, its case told."""
    neighbour = short_clips()[0]
    for batch in range(0, len(cases), CASES_IN_A_CHILD):
        home = folder / f"batch-{batch}"
        some = {f"{i:03}": case for i, case in enumerate(cases[batch : batch + CASES_IN_A_CHILD])}
        for number, case in some.items():
            inputs = home / number / "in"
            inputs.mkdir(parents=True)
            (inputs / case.name).write_bytes(case.data)
            (inputs / NEIGHBOUR).write_bytes(neighbour)
        command = [sys.executable, "-m", "tests.pipeline.corpus.fuzz_child", str(home)]
        with (folder / f"{batch}.out").open("w+") as out, (folder / f"{batch}.err").open("w+") as err:
            try:
                status: Any = subprocess.run(
                    command, cwd=ROOT, env=os.environ, stdout=out, stderr=err, timeout=CHILD_SECONDS
                ).returncode
            except subprocess.TimeoutExpired:
                status = f"no end after {CHILD_SECONDS} s"
            if status != 0:
                out.seek(0)
                err.seek(0)
                number = out.read().split()[-1:] or ["none"]
                culprit = some.get(number[0])
                pytest.fail(
                    f"{culprit and culprit.about} ({home}/{number[0]}): {status}\n{err.read()[-4000:]}"
                )
        for number, case in some.items():
            rows = json.loads((home / number / "rows.json").read_text())
            (beside,) = (row for row in rows if row["clip_id"].startswith(f"{NEIGHBOUR}#"))
            assert beside["code"] is None, f"{case.about} cost another file its row"
            yield case, [row for row in rows if row is not beside]


def check(case: Case, rows: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the rows of a case."""
    wrong = []
    identities = [row["clip_id"] for row in rows]
    if len(set(identities)) < len(identities):
        wrong.append(f"ids come twice: {sorted(i for i in set(identities) if identities.count(i) > 1)[:3]}")
    if unknown := {row["code"] for row in rows} - CODES - {None}:
        wrong.append(f"unknown codes: {unknown}")
    if any(row["code"] is None and not row["heard"] for row in rows):
        wrong.append("a row has neither an error nor features")
    if len(rows) < case.at_least:
        wrong.append(f"{len(rows)} rows where {case.at_least} clips are known")
    found = {row["audio"] for row in rows if row["code"] is None}
    found |= {os.path.basename(audio).rsplit(".", 1)[0] for audio in found if audio}
    if lost := {clip for clip in case.readable if clip not in found and clip.rsplit(".", 1)[0] not in found}:
        wrong.append(f"{len(lost)} readable clips of {len(case.readable)} are lost: {sorted(lost)[:3]}")
    return wrong


def assert_nothing_lost(cases: list[Case], folder: Path) -> None:
    wrong = []
    for number, (case, rows) in enumerate(run_children(cases, folder)):
        batch, index = divmod(number, CASES_IN_A_CHILD)
        place = folder / f"batch-{batch * CASES_IN_A_CHILD}" / f"{index:03}"
        wrong += [f"{case.about} ({place}): {what}" for what in check(case, rows)]
    assert wrong == []


@pytest.mark.slow
def test_five_hundred_damaged_copies(tmp_path: Path) -> None:
    clips = short_clips()
    tars = [
        tar(clips[:12], tarfile.USTAR_FORMAT),
        tar(clips[6:18], tarfile.PAX_FORMAT, long_names=True),
        tar(clips[12:], tarfile.GNU_FORMAT, long_names=True),
    ]
    parquets = [
        parquet(clips[:12], "plain", plain=True, compression="none", use_dictionary=False),
        parquet(clips[:12], "zstd", plain=False, compression="zstd", write_page_checksum=True),
        parquet(clips[12:], "snappy", plain=False, data_page_version="2.0"),
        parquet(clips[12:], "bare", plain=True, store_schema=False, use_dictionary=False),
    ]
    files = [loose(file) for file in sorted((DEMO / "corpus" / "loose").iterdir())]
    cases = [
        *copies(tars, 120 * MANY, 1),
        *copies([compressed(whole) for whole in tars], 60 * MANY, 2),
        *copies(parquets, 140 * MANY, 3),
        *copies([manifest(tmp_path / "clips", clips[:12])], 80 * MANY, 4),
        *copies(files, 100 * MANY, 5),
    ]
    assert len(cases) == 500 * MANY
    assert sum(len(case.readable) for case in cases) > 1500 * MANY
    assert_nothing_lost(cases, tmp_path)


@pytest.mark.slow
def test_every_bit_of_a_footer(tmp_path: Path) -> None:
    """Arrow answers some damage by ending the process, so another one reads the copies."""
    path = tmp_path / "a.parquet"
    columns = {"audio": [b"1", b"2", b"3"], "text": ["a", "b", "c"]}
    pq.write_table(pa.table(columns), path, row_group_size=2, store_schema=False)
    process = multiprocessing.get_context("spawn").Process(target=flip_every_bit, args=(path,))
    process.start()
    process.join(CHILD_SECONDS)
    process.kill()
    process.join()
    done = (tmp_path / "done").read_text()
    size = path.stat().st_size
    assert process.exitcode == 0, f"at bit {done}"
    assert int(done) == 8 * size - 1


def flip_every_bit(path: Path) -> None:
    whole = path.read_bytes()
    start = len(whole) - 8 - pq.read_metadata(path).serialized_size
    shard = Shard(str(path), path.name, "parquet", len(whole), "1")
    parquet, passthrough = READERS["parquet"], Passthrough(pa.schema([("ref_text", pa.string())]))
    for bit in range(8 * start, 8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        (path.parent / "done").write_text(str(bit))
        with contextlib.suppress(JobError):
            parquet.columns(shard, STORAGE)
        split(replace(shard, size=1 << 40), STORAGE)
        rows = pa.concat_tables(parquet.tables(shard, STORAGE, passthrough))
        rows.validate(full=True)
        identities = rows["clip_id"].to_pylist()
        assert 0 < len(identities) == len(set(identities)) < 2000, (bit, len(identities))


@pytest.mark.slow
def test_damaged_copies_of_every_format(shared_data: Path, tmp_path: Path) -> None:
    files = [loose(file) for file in sorted((shared_data / "formats").iterdir())]
    sound = [whole for whole in files if whole.name not in ("absurd_rate.wav", "bad_header.wav")]
    assert len(sound) == 7
    cases = [*copies(sound, 70, 6), *copies([f for f in files if f not in sound], 20, 7)]
    for case in cases[70:]:
        case.readable.clear()
    assert_nothing_lost(cases, tmp_path)
