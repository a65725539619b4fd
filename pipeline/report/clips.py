"""The clips that the page lists: those worst in some way, and some drawn at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from pipeline.metrics.words import differences
from pipeline.report.table import Report, Row, name_of_column

LONGEST_S = 300.0  # of a clip inside the page; of longer ones the beginning


@dataclass(frozen=True)
class Kind:
    """Why a clip is listed.

    Attributes:
        name: as people read it.
        columns: of the table, without which there are no such clips.
        query: their ids, the first to be heard first.
    """

    name: str
    columns: tuple[str, ...]
    query: str


def _by(column: str, order: str = "") -> str:
    return f"SELECT clip_id FROM clips WHERE {column} IS NOT NULL ORDER BY {column} {order}, clip_id"


RANDOM = "random"
PEOPLE = "len(list_distinct(list_transform(segments, lambda turn: turn.speaker)))"  # in a recording
KINDS: dict[str, Kind] = {
    "wer": Kind(
        "most word errors",
        ("ref_text", "text"),
        "SELECT clip_id FROM scored WHERE word_errors > 0 "
        "ORDER BY word_errors / words DESC, word_errors DESC, clip_id",
    ),
    "confidence": Kind("lowest confidence", ("text_confidence",), _by("text_confidence")),
    "alignment": Kind("lowest alignment score", ("alignment_score",), _by("alignment_score")),
    "label": Kind("least certain label", ("label_score",), _by("label_score")),
    "overlap": Kind(
        "most overlap",
        ("frame_activity",),
        "SELECT clip_id FROM spoken WHERE overlap > 0 ORDER BY overlap DESC, clip_id",
    ),
    "speakers": Kind(
        "most speakers",
        ("segments",),
        f"SELECT clip_id FROM clips WHERE {PEOPLE} > 1 ORDER BY {PEOPLE} DESC, duration_s DESC, clip_id",
    ),
    "error": Kind(
        "error",
        ("error",),
        "SELECT clip_id FROM clips WHERE error IS NOT NULL "
        "ORDER BY row_number() OVER (PARTITION BY error.code ORDER BY clip_id), error.code",
    ),
    RANDOM: Kind("random", (), "SELECT clip_id FROM clips WHERE error IS NULL ORDER BY {drawn}"),
}


def choose(report: Report, most: int) -> dict[str, list[str]]:
    """The ids of at most `most` clips, each with its kinds.

    Every kind has the same share, as far as it goes, and random ones the rest. The order is that in which
    they come into the page: the first of each kind, then the second.
    """
    kinds = {name: kind for name, kind in KINDS.items() if report.has(*kind.columns)}
    share = -(-most // len(kinds))
    found: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        wanted = most if name == RANDOM else share
        rows = report.rows(f"{kind.query.format(drawn=report.drawn)} LIMIT {wanted}")
        found[name] = [row["clip_id"] for row in rows]
    chosen: dict[str, list[str]] = {}
    for first in zip_longest(*found.values()):
        for name, clip_id in zip(found, first, strict=True):
            if clip_id is not None and (clip_id in chosen or len(chosen) < most):
                chosen.setdefault(clip_id, []).append(name)
    return chosen


def described(report: Report, chosen: Mapping[str, Sequence[str]]) -> list[Row]:
    """What the page tells of each clip, in the order in which they were chosen.

    Of a recording longer than `LONGEST_S` what is said later is left out, as its audio is.
    """
    wanted = ["shard", "duration_s", "error", "ref_text", "text", "text_confidence", "words", "aligned_words"]
    wanted += ["alignment_score", "label", "label_score", "labels", "segments"]
    held = [name for name in wanted if report.has(name)]
    names = ", ".join(f"clips.{name_of_column(name)}" for name in {*held, *report.groups})
    rows = report.rows(
        f'SELECT clip_id, {names}, scored.word_errors / scored.words AS ".wer" '
        "FROM clips LEFT JOIN scored USING (clip_id) WHERE clip_id IN (SELECT unnest(?))",
        list(chosen),
    )
    by_id = {row["clip_id"]: row for row in rows}
    return [_described(by_id[clip_id], kinds, report.groups) for clip_id, kinds in chosen.items()]


def _described(row: Row, kinds: Sequence[str], groups: Sequence[str]) -> Row:
    said, heard = row.get("ref_text"), row.get("text")
    said = said if isinstance(said, str) else None
    pieces = differences(said, heard) if said and said.strip() and heard is not None else []
    short = {
        "id": row["clip_id"],
        "shard": row["shard"],
        "kinds": list(kinds),
        "seconds": row["duration_s"],
        "error": row["error"],
        "reference": said,
        "text": heard,
        "confidence": row.get("text_confidence"),
        "alignment": row.get("alignment_score"),
        "wer": row[".wer"],
        "label": row.get("label"),
        "score": row.get("label_score"),
        "labels": [[label["label"], label["score"]] for label in row.get("labels") or ()],
        "words": _timed(row.get("words"), "word"),
        "aligned": _timed(row.get("aligned_words"), "word"),
        "turns": _timed(row.get("segments"), "speaker"),
        "pieces": [list(piece) for piece in pieces],
        "groups": {name: str(row[name]) for name in groups if row[name] is not None and name != "ref_text"},
    }
    return {name: _short(value) for name, value in short.items() if value not in (None, [], {})}


def _timed(held: Sequence[Row] | None, name: str) -> list[list[Any]]:
    """Words or turns as lists: their name, their times, and the confidence where there is one."""
    return [
        [item[name], item["start_s"], item["end_s"], *([item["confidence"]] if "confidence" in item else ())]
        for item in held or ()
        if item["start_s"] < LONGEST_S
    ]


def _short(value: Any) -> Any:
    """Numbers of four decimals: the page is read by people."""
    match value:
        case float():
            return round(value, 4)
        case list():
            return [_short(item) for item in value]
    return value
