"""Text that is put aside: on disk, once it is large."""

from __future__ import annotations

import tempfile
from typing import IO

from pipeline.export.document import Write

_IN_MEMORY = 1 << 18


class Spool:
    """Text to be written after what is known only later."""

    def __init__(self) -> None:
        self._file: IO[str] = tempfile.SpooledTemporaryFile(  # noqa: SIM115 (closed by `give`)
            _IN_MEMORY, "w+", encoding="utf-8", newline="\n"
        )

    def add(self, text: str) -> None:
        self._file.write(text)

    def give(self, write: Write) -> None:
        """Writes all of it, once."""
        with self._file:
            self._file.seek(0)
            while text := self._file.read(1 << 16):
                write(text)
