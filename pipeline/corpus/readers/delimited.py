"""Manifests as tables of text, TSV and CSV: a header with the names of the columns, then a clip a line."""

from __future__ import annotations

import codecs
import csv
from collections import deque
from collections.abc import Iterator
from typing import Any

from pipeline.corpus.columns import Cell
from pipeline.corpus.readers.base import DamagedShardError
from pipeline.corpus.readers.manifest import AUDIO_KEYS, ManifestReader, packed, seconds
from pipeline.corpus.readers.manifest.records import Records, bad_record, lines
from pipeline.storage import StorageFile

_DELIMITERS = ("\t", ",", ";")  # spreadsheets write semicolons where the comma is that of numbers
_STARTS = ("offset", "start")
_LINES_OF_A_RECORD = 100  # more are no cell with line breaks, but a quote that nothing closes
_BLANK = b'\t,;" \r\n'


class Rows(Records):
    """The lines below the header; in CSV a quoted cell may have line breaks.

    Attributes:
        header: the names of the columns; of one that comes again, `name~2`.

    Raises:
        DamagedShardError: no column names audio.
    """

    def __init__(self, file: StorageFile) -> None:
        super().__init__(file)
        head, self.begin = next(lines(self._text), (b"", 0))
        text = head.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n").decode()
        for self._delimiter in _DELIMITERS:
            self.header = _distinct([name.strip() for name in _cells(text, self._delimiter)])
            if not set(AUDIO_KEYS).isdisjoint(self.header):
                return
        raise DamagedShardError(f"no column of its header is named {', '.join(AUDIO_KEYS)}")

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        return self._records(lines(self._text))

    def start_at(self, start: int) -> Iterator[tuple[bytes, int]]:
        return self._records(super().start_at(start))

    def _records(self, found: Iterator[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
        return found if self._delimiter == "\t" else _joined(found, self._delimiter)

    def trimmed(self, record: bytes) -> bytes:
        return record.rstrip(b"\r\n") if record.strip(_BLANK) else b""

    def read(self, record: bytes) -> dict[str, Any]:
        """A `Cell` of each column, None where it is empty."""
        try:
            cells = _cells(record.decode(), self._delimiter)
        except UnicodeDecodeError as problem:
            raise bad_record(f"the line is not UTF-8: {problem}") from problem
        if len(cells) != len(self.header):
            raise bad_record(f"the line has {len(cells)} cells, the header {len(self.header)}")
        named = zip(self.header, cells, strict=True)
        return {name: Cell(cell) if cell else None for name, cell in named if name or cell}


class DelimitedReader(ManifestReader):
    """*.tsv and *.csv of which a column names audio. A line's number below the header is its clip's key."""

    records = Rows

    name = "delimited"
    endings = packed(".tsv", ".csv")
    clip_bytes = 100

    @property
    def about(self) -> str:
        return "*.tsv and *.csv with a column that names audio"

    def is_doubtful(self, name: str) -> bool:
        return True

    def names_audio(self, records: Records) -> bool:
        """The header has told."""
        return True

    def audio_path(self, record: dict[str, Any], base: str = "/") -> str:
        """Common Voice, which has a `client_id` too, keeps the files that it names in `clips`."""
        path = record.get("path")
        if isinstance(path, str) and "client_id" in record and "/" not in path:
            return super().audio_path({"path": f"clips/{path}"}, base)
        return super().audio_path(record, base)

    def part(self, record: dict[str, Any]) -> tuple[float | None, float | None]:
        """From `offset` or `start` on, for `duration` or up to `end`."""
        key = next((key for key in _STARTS if record.get(key) is not None), None)
        if key is None:
            return None, None
        start = seconds(record, key)
        if record.get("duration") is not None:
            return start, seconds(record, "duration")
        if record.get("end") is None:
            return start, None
        if (end := seconds(record, "end")) < start:
            raise bad_record(f"`end` is {end:g}, before `{key}`, which is {start:g}")
        return start, end - start


def _cells(text: str, delimiter: str) -> list[str]:
    """The cells of a record: quoted as in CSV where all of it is, else as they stand there (as Common Voice
    writes them, where a quotation may begin in one sentence and end in the next)."""
    return _quoted(text, delimiter) or text.split(delimiter)


def _quoted(text: str, delimiter: str) -> list[str] | None:
    """None where a quote opens or closes what it must not."""
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True), None)
    except csv.Error:
        return None


def _joined(found: Iterator[tuple[bytes, int]], delimiter: str) -> Iterator[tuple[bytes, int]]:
    """Lines as records: a quoted cell may have line breaks. A quote that opens no such cell joins nothing."""
    ahead: deque[tuple[bytes, int]] = deque()

    def following() -> tuple[bytes, int] | None:
        return ahead.popleft() if ahead else next(found, None)

    while (line := following()) is not None:
        held, is_open = [line], line[0].count(b'"') % 2
        while is_open and len(held) < _LINES_OF_A_RECORD and (line := following()) is not None:
            held.append(line)
            is_open ^= line[0].count(b'"') % 2
        whole = b"".join(text for text, _ in held)
        if len(held) > 1 and (is_open or _quoted(whole.decode(errors="replace"), delimiter) is None):
            ahead.extendleft(reversed(held[1:]))
            held = held[:1]
        yield b"".join(text for text, _ in held), sum(size for _, size in held)


def _distinct(names: list[str]) -> list[str]:
    return [
        name if (count := names[:at].count(name)) == 0 or not name else f"{name}~{count + 1}"
        for at, name in enumerate(names)
    ]
