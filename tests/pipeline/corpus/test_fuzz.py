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
import gzip
import io
import json
import multiprocessing
import os
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.parts import split
from pipeline.corpus.readers import READERS
from pipeline.errors import Code, JobError
from tests.pipeline.corpus.fuzz_child import STORAGE, digest

ROOT = Path(__file__).resolve().parents[3]
DEMO = ROOT / "demo"
CASES_IN_A_CHILD = 125
CHILD_SECONDS = 300
STEP = 10_240  # bytes that tarfile asks of a stream at a time
EXTENSIONS = ("wav", "flac", "mp3", "ogg", "opus", "aiff", "m4a", "tar", "tgz", "parquet", "jsonl")
AUDIO = ("wav", "flac", "mp3", "ogg", "opus", "aiff", "m4a")
FORMATS = {"WAV": "wav", "FLAC": "flac", "OGG": "ogg", "AIFF": "aiff"}
NEIGHBOUR = "neighbour.wav"  # a sound file beside each damaged one
CODES = {code.value for code in Code}


@dataclass
class Whole:
    """A file before it is damaged.

    `spans`: for each clip, the (start, stop) of all bytes that it needs; of a tar shard by its key as well.
    """

    name: str
    data: bytes
    spans: dict[str, list[tuple[int, int]]]
    headers: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    footer: int | None = None
    inner: bytes | None = None  # what a compressed file holds


@dataclass
class Case:
    """A damaged copy: the clips that must be found in it, and how many rows there are at the least."""

    about: str
    name: str
    data: bytes
    readable: set[str]
    at_least: int


# The files


def short_clips() -> list[bytes]:
    """Stretches of half a second of the demo's speech, in the formats that libsndfile writes."""
    clips = []
    for file in sorted((DEMO / "audio").glob("*.flac")):
        samples, rate = soundfile.read(file)
        for start in range(0, len(samples) - rate // 2, rate // 2):
            buffer = io.BytesIO()
            soundfile.write(
                buffer, samples[start : start + rate // 2], rate, format=list(FORMATS)[len(clips) % 4]
            )
            clips.append(buffer.getvalue())
    return clips[:24]


def tar(clips: list[bytes], format: int, *, long_names: bool = False) -> Whole:
    buffer = io.BytesIO()
    prefix = "folder/" + "n" * 120 if long_names else ""
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for number, clip in enumerate(clips):
            members = [
                (".txt", b"word %d" % number),
                (f".{list(FORMATS.values())[number % 4]}", clip),
                (".json", json.dumps({"n": number}).encode()),
            ]
            for extension, data in members[number % 2 :]:
                member = tarfile.TarInfo(f"{prefix}{number}{extension}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    data = buffer.getvalue()
    spans: dict[str, list[tuple[int, int]]] = {}
    headers: dict[str, list[tuple[int, int]]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            stop = member.offset_data + member.size
            headers.setdefault(member.name.split(".")[0], []).append((member.offset, member.offset_data))
            if not member.name.endswith(("txt", "json")):
                spans[str(digest(data[member.offset_data : stop]))] = [(member.offset, stop)]
    return Whole(f"{format}{'-long' * long_names}.tar", data, spans, headers)


def compressed(whole: Whole) -> Whole:
    data = gzip.compress(whole.data, mtime=0)
    return Whole(whole.name.replace(".tar", ".tgz"), data, whole.spans, inner=whole.data)


def parquet(clips: list[bytes], name: str, *, plain: bool, **options: Any) -> Whole:
    audio: Any = pa.array(clips, pa.binary())
    if not plain:
        audio = pa.StructArray.from_arrays([audio, pa.array(["a.wav"] * len(clips))], ["bytes", "path"])
    columns = {
        "audio": audio,
        "text": [f"word {i}" for i in range(len(clips))],
        "when": pa.array(range(len(clips)), pa.timestamp("us")),
        "tags": [["a", "b"]] * len(clips),
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=3, **options)
    data = buffer.getvalue()
    metadata = pq.read_metadata(io.BytesIO(data))
    spans = {}
    for group in (metadata.row_group(i) for i in range(metadata.num_row_groups)):
        chunks = [group.column(i) for i in range(group.num_columns)]
        pages = [
            (start, start + chunk.total_compressed_size)
            for chunk in chunks
            for start in [min(o for o in (chunk.dictionary_page_offset, chunk.data_page_offset) if o)]
        ]
        for clip in clips[len(spans) : len(spans) + group.num_rows]:
            spans[str(digest(clip))] = pages
    return Whole(f"{name}.parquet", data, spans, footer=len(data) - 8 - metadata.serialized_size)


def manifest(folder: Path, clips: list[bytes]) -> Whole:
    folder.mkdir()
    data, spans = b"", {}
    for number, clip in enumerate(clips):
        path = folder / f"{number}.{list(FORMATS.values())[number % 4]}"
        path.write_bytes(clip)
        line = json.dumps({"audio": str(path), "text": f"word {number}", "n": number}).encode() + b"\n"
        spans[str(path)] = [(max(0, len(data) - 1), len(data) + len(line))]
        data += line
    return Whole("list.jsonl", data, spans)


def loose(path: Path) -> Whole:
    return Whole(path.name, path.read_bytes(), {})


# The damage


def damaged(whole: Whole, random: np.random.Generator, way: str) -> Case:
    data, name = bytearray(whole.data), whole.name
    size = len(data)
    hit: list[tuple[int, int]] = []
    match way:
        case "cut":
            where = int(random.integers(0, size))
            hit = [(where, size)]
            del data[where:]
        case "flips":
            hit = [(at, at + 1) for at in random.integers(0, size, int(random.integers(1, 9))).tolist()]
        case "flips in headers":
            places = headers_of(whole)
            for _ in range(int(random.integers(1, 4))):
                start, stop = places[int(random.integers(0, len(places)))]
                at = int(random.integers(start, stop))
                hit.append((at, at + 1))
        case "zeros":
            start = int(random.integers(0, size))
            hit = [(start, min(size, start + int(2 ** random.uniform(0, 11))))]
            data[start : hit[0][1]] = bytes(hit[0][1] - start)
        case "extension":
            name = f"{name.rsplit('.', 1)[0]}.{random.choice(EXTENSIONS)}"
    if way.startswith("flips"):
        for at, _ in hit:
            data[at] ^= 1 << int(random.integers(0, 8))
        hit = [(at, at + 1) for at, _ in hit if data[at] != whole.data[at]]
    return Case(f"{whole.name}: {way}", name, bytes(data), *promise(whole, name, bytes(data), hit))


def headers_of(whole: Whole) -> list[tuple[int, int]]:
    if whole.footer is not None:
        return [(whole.footer, len(whole.data))]
    if whole.headers:
        return [place for places in whole.headers.values() for place in places]
    return [(0, min(64, len(whole.data)))]


def promise(whole: Whole, name: str, data: bytes, hit: list[tuple[int, int]]) -> tuple[set[str], int]:
    """The clips that must be found, and how many rows there must be."""
    extension, before = name.rsplit(".", 1)[1], whole.name.rsplit(".", 1)[1]
    if extension == "jsonl":
        least = max(1, sum(bool(line.strip()) for line in data.split(b"\n"))) if data.strip() else 0
        return (untouched(whole, hit) if before == "jsonl" else set()), least
    if before in AUDIO:
        return ({whole.name} if extension in AUDIO and data == whole.data else set()), 1
    if {before, extension} <= {"tar", "tgz"}:
        if whole.inner is not None:
            sound = sound_bytes(whole.inner, data) - STEP if hit else len(whole.inner)
            return untouched(whole, [(sound, len(whole.inner))]), 1
        known = [
            key for key, places in whole.headers.items() if any(sound_span(place, hit) for place in places)
        ]
        return untouched(whole, hit), max(1, len(known))
    if before == extension == "parquet" and sound_span((whole.footer or 0, len(whole.data)), hit):
        return untouched(whole, hit), len(whole.spans)
    return set(), 1


def untouched(whole: Whole, hit: list[tuple[int, int]]) -> set[str]:
    return {clip for clip, spans in whole.spans.items() if all(sound_span(span, hit) for span in spans)}


def sound_span(span: tuple[int, int], hit: list[tuple[int, int]]) -> bool:
    return all(stop <= span[0] or span[1] <= start for start, stop in hit)


def sound_bytes(inner: bytes, data: bytes) -> int:
    """How many bytes a damaged gzip stream gives before they differ from the sound ones, or end."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    given = 0
    try:
        for at in range(len(data)):
            part = stream.decompress(data[at : at + 1])
            if part != inner[given : given + len(part)]:
                return given + next(
                    i for i, (a, b) in enumerate(zip(part, inner[given:], strict=False)) if a != b
                )
            given += len(part)
    except zlib.error:
        pass
    return given


# The runs


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


WAYS = ("cut", "flips", "flips in headers", "zeros", "extension")


def copies(wholes: list[Whole], count: int, seed: int) -> list[Case]:
    random = np.random.default_rng(seed)
    return [
        damaged(wholes[i % len(wholes)], random, WAYS[i // len(wholes) % len(WAYS)]) for i in range(count)
    ]


def assert_nothing_lost(cases: list[Case], folder: Path) -> None:
    wrong = []
    for number, (case, rows) in enumerate(run_children(cases, folder)):
        batch, index = divmod(number, CASES_IN_A_CHILD)
        place = folder / f"batch-{batch * CASES_IN_A_CHILD}" / f"{index:03}"
        wrong += [f"{case.about} ({place}): {what}" for what in check(case, rows)]
    assert wrong == []


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
        *copies(tars, 120, 1),
        *copies([compressed(whole) for whole in tars], 60, 2),
        *copies(parquets, 140, 3),
        *copies([manifest(tmp_path / "clips", clips[:12])], 80, 4),
        *copies(files, 100, 5),
    ]
    assert len(cases) == 500
    assert sum(len(case.readable) for case in cases) > 1500
    assert_nothing_lost(cases, tmp_path)


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


def test_damaged_copies_of_every_format(shared_data: Path, tmp_path: Path) -> None:
    files = [loose(file) for file in sorted((shared_data / "formats").iterdir())]
    sound = [whole for whole in files if whole.name not in ("absurd_rate.wav", "bad_header.wav")]
    assert len(sound) == 7
    cases = [*copies(sound, 70, 6), *copies([f for f in files if f not in sound], 20, 7)]
    for case in cases[70:]:
        case.readable.clear()
    assert_nothing_lost(cases, tmp_path)
