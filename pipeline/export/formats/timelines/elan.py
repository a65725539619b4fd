"""ELAN's annotation format (EAF 3.0): a tier of words, and one of each speaker's turns.

The times stand before the tiers, so both are put aside (on disk, once they are large) until the last clip.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from pipeline.clip_names import encode_field
from pipeline.export.audio_files import AudioFile, audio_file, columns_of_audio
from pipeline.export.document import Content, Write, identity, register
from pipeline.export.formats.timelines.spool import Spool
from pipeline.export.formats.timelines.tiers import Tiers
from pipeline.export.intervals import (
    Interval,
    Timed,
    lay_out,
    length_s,
    milliseconds,
    timed_parts,
    turns_by_speaker,
)
from pipeline.export.table import Row, Table
from pipeline.storage import is_remote

_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
_DATE = "1970-01-01T00:00:00Z"  # the format wants one; the same table gives the same file
_NO_XML = re.compile("[\ufffe\uffff]")
_MIME = {".wav": "audio/x-wav"}  # as ELAN calls it


@register
class Elan(Tiers):
    """Of a clip that is a file, or a part of one, ELAN opens that; the whole table has no sound."""

    name = "elan"
    extension = "eaf"

    def __init__(self, write: Write, *, whole_table: bool) -> None:
        super().__init__(write, whole_table=whole_table)
        self._media: AudioFile | None = None
        self._times = Spool()
        self._annotations = 0
        self._tiers: dict[tuple[str, str], Spool] = {}  # by kind and name, which may be equal

    @classmethod
    def columns(cls, table: Table, content: Content) -> Mapping[str, str]:
        return {**super().columns(table, content), **identity(*columns_of_audio(table))}

    def add(self, row: Row) -> None:
        length = length_s(row)
        if self._whole_table:
            name = encode_field(row["clip_id"])
            self._extend("0 clips", "clips", lay_out([Timed(0.0, length, name)], self._at_s, length))
        else:
            self._media = audio_file(row)
        self._extend("1 words", "words", lay_out(timed_parts(row["words"], "word"), self._at_s, length))
        for speaker, turns in turns_by_speaker(row).items():
            self._extend("2 speakers", speaker, lay_out(turns, self._at_s, length))
        self._at_s += length

    def finish(self) -> None:
        self._write(
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<ANNOTATION_DOCUMENT AUTHOR="" DATE="{_DATE}" FORMAT="3.0" VERSION="3.0" '
            'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
            f'xsi:noNamespaceSchemaLocation="{_SCHEMA}">\n'
            f'    <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">{_descriptor(self._media)}</HEADER>\n'
            "    <TIME_ORDER>\n"
        )
        self._times.give(self._write)
        self._write("    </TIME_ORDER>\n")
        taken: set[str] = set()
        for kind, name in sorted(self._tiers):
            tier = name
            while tier in taken:
                tier += "~2"
            taken.add(tier)
            self._write(f'    <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID={_quoted(tier)}>\n')
            self._tiers[kind, name].give(self._write)
            self._write("    </TIER>\n")
        self._write(
            '    <LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="default-lt" '
            'TIME_ALIGNABLE="true"/>\n</ANNOTATION_DOCUMENT>\n'
        )

    def _extend(self, kind: str, name: str, intervals: Iterable[Interval]) -> None:
        """Adds annotations to a tier, each with two times of its own."""
        tier = self._tiers.setdefault((kind, name), Spool())
        for interval in intervals:
            self._annotations += 1
            number = self._annotations
            for slot, time in ((2 * number - 1, interval.start), (2 * number, interval.end)):
                self._times.add(f'        <TIME_SLOT TIME_SLOT_ID="ts{slot}" TIME_VALUE="{time}"/>\n')
            tier.add(
                f'        <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a{number}" '
                f'TIME_SLOT_REF1="ts{2 * number - 1}" TIME_SLOT_REF2="ts{2 * number}">'
                f"<ANNOTATION_VALUE>{escape(_valid(interval.text))}</ANNOTATION_VALUE>"
                "</ALIGNABLE_ANNOTATION></ANNOTATION>\n"
            )


def _descriptor(media: AudioFile | None) -> str:
    if media is None:
        return ""
    place = media.uri if is_remote(media.uri) else f"file:///{media.uri.lstrip('/')}"  # as ELAN spells it
    ending = Path(media.uri).suffix.lower()
    kind = _MIME.get(ending) or mimetypes.types_map.get(ending, "unknown")
    origin = f' TIME_ORIGIN="{milliseconds(media.start_s)}"' if media.start_s else ""
    return f'<MEDIA_DESCRIPTOR MEDIA_URL={_quoted(place)} MIME_TYPE="{kind}"{origin}/>'


def _quoted(text: str) -> str:
    return str(quoteattr(_valid(text)))


def _valid(text: str) -> str:
    """Without the characters that XML has no place for."""
    return _NO_XML.sub("", text)
