"""Times: seconds of the table as whole milliseconds, and words as intervals that do not overlap."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # but for those that are blanks


@dataclass(frozen=True)
class Interval:
    """Something said from `start` to `end`, in milliseconds."""

    start: int
    end: int
    text: str


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def seconds(milliseconds: int) -> str:
    """Seconds to three decimals, exactly: 1250 is 1.250."""
    return f"{milliseconds // 1000}.{milliseconds % 1000:03}"


class Timed(NamedTuple):
    """A word or a speaker's turn, in seconds from the start of its clip."""

    start_s: float
    end_s: float
    text: str
    confidence: float | None = None


def timed_parts(parts: Iterable[Mapping[str, Any]] | None, text: str) -> list[Timed]:
    """The words or segments (`text` is their field) that have a text and a time, in time order."""
    found = [
        Timed(max(0.0, part["start_s"]), part["end_s"], said, part.get("confidence"))
        for part in parts or ()
        if _is_time(part["start_s"]) and _is_time(part["end_s"]) and (said := clean(part[text] or ""))
    ]
    return sorted(found, key=lambda part: (part.start_s, part.end_s))


def length_s(row: Mapping[str, Any]) -> float:
    """Seconds that the clip takes on a timeline: up to its last word where its duration is unknown."""
    if _is_time(row["duration_s"]) and row["duration_s"] > 0:
        return float(row["duration_s"])
    ends = [part["end_s"] for name in ("words", "segments") for part in row.get(name) or ()]
    return max((end for end in ends if _is_time(end)), default=0.0)


def start_and_duration(part: Timed) -> str:
    """Two fields of a line. Both ends are rounded, so that one part's end stays the next one's start."""
    start, end = milliseconds(part.start_s), milliseconds(part.end_s)
    return f"{seconds(start)} {seconds(max(0, end - start))}"


def lay_out(parts: Iterable[Timed], at_s: float, length_s: float) -> list[Interval]:
    """Parts in time order, of a clip that starts at `at_s`, as intervals on the timeline.

    None is empty, none overlaps the next, and all are inside the clip: what overlaps is cut where the next
    begins, and what would have no room is joined to the one before.
    """
    first, last = milliseconds(at_s), milliseconds(at_s + length_s)
    intervals: list[Interval] = []
    for start_s, end_s, text, _ in parts:
        start = max(first, milliseconds(at_s + start_s))
        if intervals:
            before = intervals[-1]
            start = max(start, before.start + 1)
            if start >= last:
                intervals[-1] = replace(before, text=f"{before.text} {text}")
                continue
            intervals[-1] = replace(before, end=min(before.end, start))
        start = min(start, last - 1)
        if start >= first:
            intervals.append(Interval(start, min(max(milliseconds(at_s + end_s), start + 1), last), text))
    return intervals


def turns_by_speaker(row: Mapping[str, Any]) -> dict[str, list[Timed]]:
    """Each speaker's segments in time order; those that overlap are one."""
    turns: dict[str, list[Timed]] = {}
    for start, end, speaker, _ in timed_parts(row["segments"], "speaker"):
        of_speaker = turns.setdefault(speaker, [])
        if of_speaker and start < of_speaker[-1][1]:
            start, end = of_speaker[-1][0], max(end, of_speaker.pop()[1])
        of_speaker.append(Timed(start, end, speaker))
    return turns


def clean(text: str) -> str:
    """`text` in one line: line breaks and runs of blanks have a meaning in every format, controls in none."""
    return " ".join(_CONTROL.sub("", text).split())


def _is_time(value: Any) -> bool:
    return value is not None and math.isfinite(value)
