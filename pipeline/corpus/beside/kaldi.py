"""The tables of a Kaldi data directory beside its `wav.scp`: segments, text, utt2spk and two more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.corpus.beside.base import Beside, Listing
from pipeline.corpus.beside.entries import Entry, OfAllClips
from pipeline.corpus.clips import Shard
from pipeline.errors import ClipError, Code, Stage
from pipeline.storage import FileInfo, Storage, name_of

_SEGMENTS, _OF_SPEAKERS = "segments", "spk2gender"
_COLUMNS = {"text": "text", "utt2spk": "speaker", "utt2lang": "language"}  # of utterances, by their tables
_TABLES = (_SEGMENTS, *_COLUMNS, _OF_SPEAKERS)


@dataclass(frozen=True)
class KaldiTables(OfAllClips):
    """Each segment is an utterance, and a clip; without segments each recording is one.

    Attributes:
        tables: the URIs of all; `uri` is the first.
    """

    tables: tuple[str, ...]

    def entries(self, storage: Storage) -> Iterator[tuple[str, Entry]]:
        tables = {name_of(uri): storage.read_bytes(uri) for uri in self.tables}
        columns = {column: dict(_pairs(tables.get(name, b""))) for name, column in _COLUMNS.items()}
        genders = dict(_pairs(tables.get(_OF_SPEAKERS, b"")))

        def entry(utterance: str, segment: _Segment | None = None) -> Entry:
            found = {name: held[utterance] for name, held in columns.items() if utterance in held}
            if (gender := genders.get(str(found.get("speaker")))) is not None:
                found["gender"] = gender
            values = {name: value for name, value in found.items() if isinstance(value, str)}
            extra = {name: value for name, value in found.items() if name not in values}
            if segment is None:
                return Entry(utterance, values, extra)
            values["recording"] = segment.recording
            return Entry(utterance, values, extra, segment.start_s, segment.length_s, segment.error)

        told = set()
        for number, line in enumerate(tables.get(_SEGMENTS, b"").splitlines(), 1):
            if line.strip():
                segment = _segment(line, number)
                told.add(segment.utterance)
                yield segment.recording, entry(segment.utterance, segment)
        for utterance in dict.fromkeys(key for held in columns.values() for key in held):
            if utterance not in told:
                yield utterance, entry(utterance)


@dataclass(frozen=True)
class _Segment:
    """A line of `segments`: utterance, recording, start and end in seconds; an end of -1 is its last."""

    utterance: str
    recording: str
    start_s: float | None = None
    length_s: float | None = None
    error: ClipError | None = None


def _segment(line: bytes, number: int) -> _Segment:
    utterance, recording, *times = [*line.decode("utf-8-sig", "replace").split(), "", ""][:4]
    try:
        start, end = map(float, times)
        if not (0 <= start < end or (start >= 0 and end == -1)) or end == float("inf"):
            raise ValueError
    except ValueError:
        message = (
            f"line {number} of {_SEGMENTS}: start and end must be seconds, and are {' and '.join(times)!r}"
        )
        error = ClipError(Stage.READ, Code.BAD_RECORD, message)
        return _Segment(utterance, recording, error=error)
    return _Segment(utterance, recording, start, None if end == -1 else end - start)


def _pairs(table: bytes) -> Iterator[tuple[str, str | bytes]]:
    """Each key with the rest of its line; with the line as it is where that is not UTF-8."""
    for line in table.splitlines():
        key, *rest = line.decode("utf-8-sig", "replace").split(maxsplit=1)[:2] or [""]
        try:
            line.decode()
        except UnicodeDecodeError:
            yield key, line
            continue
        if key:
            yield key, " ".join(rest).strip()


def kaldi(listing: Listing) -> Iterator[tuple[Shard | None, Beside]]:
    """Of each `wav.scp` the tables in its folder."""
    for shard in listing.shards:
        if shard.format == "kaldi":
            found = filter(None, (listing.beside(shard.uri, name) for name in _TABLES))
            tables: list[FileInfo] = list(found)
            yield from ((None, Beside(table.uri, table.version)) for table in tables)
            if tables:
                uris = tuple(table.uri for table in tables)
                yield shard, KaldiTables(uris[0], tables[0].version, uris)
