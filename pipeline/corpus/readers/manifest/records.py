"""The records of a manifest: lines, or the elements of one array, whatever the file is packed in."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.corpus.readers.base import DamagedShardError
from pipeline.corpus.readers.compression import decompressed
from pipeline.errors import ClipFailedError, Code, Stage
from pipeline.storage import StorageFile

RECORD_BYTES = 8 << 20  # what is no manifest may have no line breaks
_ARRAY_BYTES = 512 << 20
_BUFFER_BYTES = 1 << 20
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ARRAY = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*[{\]]")
_BETWEEN = re.compile(r"[\s,]*")
_NEXT = re.compile(r",\s*(?=\{)")


class Records:
    """Each record in UTF-8, and its size in bytes; of a large one only the beginning is kept.

    Attributes:
        direct: records lie in the file as they are, so that reading can start at any of them.
        begin: the byte where the first one does.
    """

    begin = 0

    def __init__(self, file: StorageFile) -> None:
        self._file, stream = file, decompressed(file)
        self._text: Any = io.BufferedReader(stream, _BUFFER_BYTES)
        head = self._text.peek(1)
        if wide := head.startswith(_UTF16):
            narrow = pa.transcoding_input_stream(pa.PythonFile(self._text, mode="r"), "utf-16", "utf-8")
            self._text = io.BufferedReader(narrow, _BUFFER_BYTES)
            head = self._text.peek(1)
        self._is_array = bool(_ARRAY.match(head))
        self.direct = stream is file and not wide and not self._is_array

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        return _elements(self._text) if self._is_array else lines(self._text)

    def start_at(self, start: int) -> Iterator[tuple[bytes, int]]:
        """Those from the byte on where one begins; they are `direct`."""
        self._file.seek(start)
        return lines(io.BufferedReader(self._file, _BUFFER_BYTES))

    def trimmed(self, record: bytes) -> bytes:
        """Without what joined files and pasted arrays leave: byte order marks inside, commas after objects;
        nothing where the record has no content."""
        return record.strip().removeprefix(codecs.BOM_UTF8).strip().removesuffix(b",")

    def read(self, record: bytes) -> dict[str, Any]:
        """What a trimmed record says.

        Raises:
            ClipFailedError: it is none.
        """
        try:
            found = json.loads(record.decode())
        except (ValueError, RecursionError) as problem:
            raise bad_record(f"the record is not JSON in UTF-8: {problem}") from problem
        if not isinstance(found, dict):
            raise bad_record(f"the record is not a JSON object but {type(found).__name__}")
        return found


def bad_record(message: str) -> ClipFailedError:
    return ClipFailedError(Stage.READ, Code.BAD_RECORD, message)


def lines(text: Any) -> Iterator[tuple[bytes, int]]:
    while line := text.readline(RECORD_BYTES + 1):
        size, rest = len(line), line
        while len(rest) > 0 and not rest.endswith(b"\n"):
            rest = text.readline(_BUFFER_BYTES)
            size += len(rest)
        yield line, size


def _elements(text: Any) -> Iterator[tuple[bytes, int]]:
    """What cannot be read goes up to where another element seems to begin."""
    data = text.read(_ARRAY_BYTES + 1)
    if len(data) > _ARRAY_BYTES:
        raise DamagedShardError(
            f"it is one array of more than {_ARRAY_BYTES >> 20} MiB; write an object a line instead"
        )
    array = data.decode("utf-8", "surrogateescape").rstrip()
    end = len(array) - array.endswith("]")
    decode = json.JSONDecoder().raw_decode
    at = array.index("[") + 1
    while (at := _skip(array, at)) < end:
        try:
            _, stop = decode(array, at)
        except (ValueError, RecursionError):
            following = _NEXT.search(array, at)
            stop = following.start() if following else end
        element = array[at:stop].encode("utf-8", "surrogateescape")
        yield element, len(element)
        at = stop
    if end == len(array):
        raise DamagedShardError("the array does not end")


def _skip(array: str, at: int) -> int:
    between = _BETWEEN.match(array, at)
    return between.end() if between else at
