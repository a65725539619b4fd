"""Texts beside loose audio: x.txt or x.lab for x.wav, LibriSpeech's *.trans.txt, LJSpeech's metadata.csv."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

from pipeline.corpus.beside.base import TEXT_BYTES, Beside, Listing, decoded, folder_of, stem_of
from pipeline.corpus.beside.entries import Entry, OfEachClip
from pipeline.corpus.clips import Shard
from pipeline.storage import FileInfo, Storage, name_of

_SIDECARS = (".txt", ".lab", ".TXT", ".LAB")
_HTK = re.compile(r"\s*\d+\s+\d+\s+\S.*")  # start and end in units of 100 ns, a label
_LIBRISPEECH = re.compile(r"(?P<chapter>(?P<speaker>\d+)-\d+)-\d+")
_LJSPEECH, _WAVS = "metadata.csv", "wavs"
_LJSPEECH_LINE = re.compile(r"(?P<key>[^|\s][^|]*)\|(?P<text>[^|]*)(?:\|(?P<normalized_text>[^|]*))?")
_HEAD_BYTES = 64 << 10
_HELD = 4  # files of transcripts in memory: their audio is read side by side


@dataclass(frozen=True)
class Sidecar(OfEachClip):
    """The text of one recording."""

    def of(self, key: str, storage: Storage) -> Entry | None:
        data = storage.read_bytes(self.uri)
        try:
            text = decoded(data).strip()
        except UnicodeDecodeError:
            return Entry(key, extra={"text": data})
        timed = self.uri.lower().endswith(".lab") and all(map(_HTK.fullmatch, text.splitlines()))
        return Entry(key, {"lab" if timed and text else "text": text})


def sidecars(listing: Listing) -> Iterator[tuple[Shard, Beside]]:
    """Of each loose file the text of its name."""
    if not any(uri.endswith(_SIDECARS) for uri in listing.others):
        return
    for shard in listing.shards:
        folder = folder_of(shard.uri)
        names = (name_of(shard.uri), stem_of(shard.uri))
        found = (listing.others.get(f"{folder}/{name}{end}") for end in _SIDECARS for name in names[::-1])
        if text := next((info for info in found if info and info.size <= TEXT_BYTES), None):
            yield shard, Sidecar(text.uri, text.version)


@dataclass(frozen=True)
class Transcripts(OfEachClip):
    """The texts of several recordings, a line each."""

    def of(self, key: str, storage: Storage) -> Entry | None:
        return _entries(self, storage).get(key)

    def line(self, text: str) -> Entry | None:
        """What a line of the file says; None where it is none."""
        raise NotImplementedError


@lru_cache(_HELD)
def _entries(transcripts: Transcripts, storage: Storage) -> dict[str, Entry]:
    found = {}
    for line in storage.read_bytes(transcripts.uri).splitlines():
        if (entry := transcripts.line(line.decode("utf-8-sig", "replace"))) is not None:
            sound = _is_utf8(line)
            found[entry.key] = entry if sound else Entry(entry.key, extra={"text": line})
    return found


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


@dataclass(frozen=True)
class LibriSpeech(Transcripts):
    """`84-121123.trans.txt` beside `84-121123-0000.flac`: the recording's name, a blank, the words."""

    def line(self, text: str) -> Entry | None:
        key, blank, words = text.partition(" ")
        match = _LIBRISPEECH.fullmatch(key)
        return Entry(key, {"text": words.strip(), "speaker": match["speaker"]}) if match and blank else None


def librispeech(listing: Listing) -> Iterator[tuple[Shard, Beside]]:
    for shard in listing.shards:
        match = _LIBRISPEECH.fullmatch(stem_of(shard.uri))
        if match and (info := listing.beside(shard.uri, f"{match['chapter']}.trans.txt")):
            yield shard, LibriSpeech(info.uri, info.version)


@dataclass(frozen=True)
class LJSpeech(Transcripts):
    """`metadata.csv` above `wavs/`, without a header: `LJ001-0001|as printed|in words`."""

    def line(self, text: str) -> Entry | None:
        match = _LJSPEECH_LINE.fullmatch(text)
        values = {name: value.strip() for name, value in match.groupdict().items() if value} if match else {}
        return Entry(values.pop("key"), values) if values else None


def ljspeech(listing: Listing) -> Iterator[tuple[Shard, Beside]]:
    @cache
    def metadata(folder: str) -> FileInfo | None:
        info = listing.others.get(f"{folder}/{_LJSPEECH}")
        return info if info and _is_ljspeech(info, listing.storage) else None

    for shard in listing.shards:
        folder = folder_of(shard.uri)
        if name_of(folder) == _WAVS and (info := metadata(folder_of(folder))):
            yield shard, LJSpeech(info.uri, info.version)


def _is_ljspeech(info: FileInfo, storage: Storage) -> bool:
    """Whether its first line is one; a CSV with a header is a manifest."""
    with storage.open(info.uri, block_size=_HEAD_BYTES) as file:
        head = file.read(_HEAD_BYTES)
    first = head.split(b"\n")[0].decode("utf-8-sig", "replace").rstrip("\r")
    return _LJSPEECH_LINE.fullmatch(first) is not None
