"""RTTM (NIST RT-09 evaluation plan, appendix A): who speaks when, as people have marked it."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.clip_names import read_fields
from pipeline.errors import JobError
from pipeline.storage import Storage

# Types of records that say nothing of who speaks.
_OTHER_RECORDS = frozenset(
    {"SEGMENT", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "IP", "SU"}
    | {"CB", "A/P", "SPKR-INFO"}
)
_UNKNOWN = frozenset({"<NA>", "NA", "-"})
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_FORM = "SPEAKER recording channel start duration <NA> <NA> speaker <NA> <NA>"


class Segment(NamedTuple):
    """One speaker's speech without a pause, in seconds from the start of the clip."""

    speaker: str
    start_s: float
    end_s: float


class Span(NamedTuple):
    """Seconds from the start of the clip."""

    start_s: float
    end_s: float


@dataclass
class Marks:
    """What is marked in one recording; `unscored` is what nobody wants scored."""

    segments: list[Segment] = field(default_factory=list)
    unscored: list[Span] = field(default_factory=list)


def read_rttm(flag: str, uri: str, storage: Storage) -> dict[str, Marks]:
    """The recordings that have SPEAKER records, by the names that the file gives them.

    Not pyannote.database's load_rttm: it drops speakers called NA or None, and knows no line numbers.

    Raises:
        JobError: no such file, a line that is not RTTM, or no speaker in it.
    """
    marks: defaultdict[str, Marks] = defaultdict(Marks)
    for number, fields in read_fields(flag, uri, storage):
        kind = fields[0]
        if kind.startswith(";;") or kind in _OTHER_RECORDS:
            continue
        try:
            span = _span(fields)
        except ValueError as problem:
            raise JobError(
                f"{flag} {uri}, line {number}: not an RTTM record, for {problem}: {' '.join(fields)[:200]}\n"
                f"Write {_FORM}, and a blank inside a name as %20."
            ) from None
        if kind == "SPEAKER":
            marks[fields[1]].segments.append(Segment(fields[7], *span))
        else:
            marks[fields[1]].unscored.append(span)
    spoken = {name: held for name, held in marks.items() if held.segments}
    if not spoken:
        raise JobError(f"{flag} {uri} holds no SPEAKER record")
    return spoken


def _span(fields: list[str]) -> Span:
    """When a SPEAKER or NOSCORE record is; a ValueError says why it is none.

    A blank inside a name moves the fields after it, which need not make too many: earlier plans of NIST have
    nine, and some tools write eight.
    """
    if fields[0] not in ("SPEAKER", "NOSCORE"):
        raise ValueError(f"'{fields[0][:40]}' is no type of record (comments begin with ;;)")
    if not 8 <= len(fields) <= 10:
        raise ValueError(f"it has {len(fields)} fields, not 8 to 10")
    start, duration = _seconds(fields[3], "start"), _seconds(fields[4], "duration")
    if _NUMBER.fullmatch(fields[5]):
        raise ValueError(f"field 6 is the number {fields[5]}, as if the recording's name had a blank")
    for name, value in zip(("confidence", "look-ahead"), fields[8:], strict=False):
        if value not in _UNKNOWN and not _NUMBER.fullmatch(value):
            raise ValueError(f"the {name} is '{value}', as if the speaker's name had a blank")
    if len(fields) > 8 and fields[8] not in _UNKNOWN and not 0 <= float(fields[8]) <= 1:
        raise ValueError(f"the confidence is {fields[8]}, not within 0 and 1")
    return Span(start, start + duration)


def _seconds(text: str, name: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not 0 <= value <= 1e9:
        raise ValueError(f"the {name} is '{text}', not a number of seconds, 0 or more")
    return value
