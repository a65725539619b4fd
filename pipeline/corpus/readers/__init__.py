"""The shard formats, one file each; a format that is registered is found in the input like any other."""

from __future__ import annotations

from pipeline.corpus.readers.audio import AudioReader
from pipeline.corpus.readers.base import Reader
from pipeline.corpus.readers.delimited import DelimitedReader
from pipeline.corpus.readers.kaldi import KaldiReader
from pipeline.corpus.readers.manifest import ManifestReader
from pipeline.corpus.readers.parquet import ParquetReader
from pipeline.corpus.readers.parquet.arrow import ArrowReader
from pipeline.corpus.readers.tar import TarReader

READERS: dict[str, Reader] = {}


def register(reader: Reader) -> None:
    """Makes a format known.

    Raises:
        ValueError: its name or one of its endings is taken.
    """
    for other in READERS.values():
        taken = {reader.name} & {other.name} | {*reader.endings} & {*other.endings}
        if taken:
            raise ValueError(f"{', '.join(sorted(taken))}: taken by the reader of {other.name}")
    READERS[reader.name] = reader


def recognise(path: str) -> Reader | None:
    """The reader of a file by its name; None where that promises no audio."""
    name = path.rsplit("/", 1)[-1].lower()
    return next((reader for reader in READERS.values() if name.endswith(reader.endings)), None)


for _reader in (
    ParquetReader(),
    TarReader(),
    ManifestReader(),
    DelimitedReader(),
    ArrowReader(),
    KaldiReader(),
    AudioReader(),
):
    register(_reader)
