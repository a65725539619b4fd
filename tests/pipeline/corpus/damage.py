"""Sound files and shards, damaged copies of them, and what must still be found in those."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from tests.pipeline.corpus.fuzz_child import digest

ROOT = Path(__file__).resolve().parents[3]
DEMO = ROOT / "demo"
STEP = 10_240  # bytes that tarfile asks of a stream at a time
EXTENSIONS = ("wav", "flac", "mp3", "ogg", "opus", "aiff", "m4a", "tar", "tgz", "parquet", "jsonl")
AUDIO = ("wav", "flac", "mp3", "ogg", "opus", "aiff", "m4a")
FORMATS = {"WAV": "wav", "FLAC": "flac", "OGG": "ogg", "AIFF": "aiff"}
WAYS = ("cut", "flips", "flips in headers", "zeros", "extension")


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


def copies(wholes: list[Whole], count: int, seed: int) -> list[Case]:
    random = np.random.default_rng(seed)
    return [
        damaged(wholes[i % len(wholes)], random, WAYS[i // len(wholes) % len(WAYS)]) for i in range(count)
    ]
