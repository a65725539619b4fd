"""Transcripts: how often they are wrong where a reference says so, and what they are made of."""

from __future__ import annotations

import unicodedata

from pipeline.html import Tile
from pipeline.report.charts import Chart, Section, Table, bars, count, histogram, percent
from pipeline.report.table import Report, Row

_GROUPS = 15  # speakers, or shards, with the most word errors
_PAIRS = 15
_WORDS = 20
_CHARACTERS = 60
_EDGES_S = (2, 5, 10, 20, 40)  # of the lengths that error rates are given for
_RATES = (
    "sum(scored.word_errors) / sum(scored.words) AS WER, "
    "sum(scored.character_errors) / sum(scored.characters) AS CER, "
    "count(*) AS clips, sum(scored.words)::BIGINT AS words"
)


def section(report: Report) -> Section | None:
    if not report.has("text"):
        return None
    scored = report.row(f"SELECT {_RATES} FROM scored")
    vocabulary = _vocabulary(report)
    tiles = [Tile("words", count(vocabulary["spoken"]), f"{count(vocabulary['different'])} different")]
    tables = [_frequent(report)]
    charts = _lengths(report)
    if scored["clips"]:
        clips = f"over {count(scored['clips'])} clips with a reference"
        tiles[:0] = [
            Tile("WER", percent(scored["WER"], 2), clips),
            Tile("CER", percent(scored["CER"], 2), f"{count(scored['words'])} words of references"),
        ]
        charts = [*_rates(report), *charts]
        tables = [*_confusions(report), *tables]
    if report.has("alignment_score"):
        charts += histogram(
            report, "Alignment with the reference", "alignment_score", "mean log posterior of a frame"
        )
    return Section(
        "text",
        "Text",
        "What is heard, compared with references as they stand: case and punctuation count.",
        tiles,
        charts,
        [table for table in (*tables, _alphabet(report)) if table.rows],
        ["wer", "confidence", "alignment"],
    )


def _rates(report: Report) -> list[Chart]:
    """Word errors by what tells clips apart."""
    charts = histogram(
        report, "Word errors of a clip", "100 * word_errors / words", "WER, percent", source="scored"
    )
    charts += [_by_length(report)]
    if report.has("speaker"):
        charts += _by(report, "speaker", "Word errors by speaker")
    return [*charts, *_by(report, "shard", "Word errors by shard")]


def _by(report: Report, column: str, title: str) -> list[Chart]:
    """The groups with the highest rates; nothing where there is but one."""
    rows = report.rows(
        f"SELECT *, count(*) OVER () AS groups FROM (SELECT clips.{column}::VARCHAR AS {column}, {_RATES} "
        f"FROM scored JOIN clips USING (clip_id) WHERE clips.{column} IS NOT NULL GROUP BY 1) "
        f"ORDER BY WER DESC, clips DESC, 1 LIMIT {_GROUPS}"
    )
    if len(rows) < 2:
        return []
    groups = max(row.pop("groups") for row in rows)
    about = f"the {_GROUPS} worst of {count(groups)}" if groups > _GROUPS else ""
    return [bars(title, rows, column, "WER", shares=True, about=about)]


def _by_length(report: Report) -> Chart:
    bounds = " ".join(f"WHEN duration_s < {edge} THEN {place}" for place, edge in enumerate(_EDGES_S))
    rows = report.rows(
        f"SELECT CASE {bounds} ELSE {len(_EDGES_S)} END AS place, {_RATES} "
        "FROM scored JOIN clips USING (clip_id) GROUP BY place ORDER BY place"
    )
    names = [f"{low} to {high} s" for low, high in zip((0, *_EDGES_S), _EDGES_S, strict=False)]
    names.append(f"{_EDGES_S[-1]} s and more")
    return bars(
        "Word errors by length",
        [{"length": names[row.pop("place")], **row} for row in rows],
        "length",
        "WER",
        shares=True,
    )


def _confusions(report: Report) -> list[Table]:
    """Words that are taken for others, that are not heard, and that nobody said."""
    wrong = report.rows(
        "SELECT said, heard, times FROM edits WHERE kind = 'wrong' "
        f"ORDER BY times DESC, said, heard LIMIT {_PAIRS}"
    )
    lost = report.rows(
        "SELECT said, sum(times)::BIGINT AS spoken, "
        "coalesce(sum(times) FILTER (kind = 'equal'), 0)::BIGINT AS equal, "
        "coalesce(sum(times) FILTER (kind = 'missing'), 0)::BIGINT AS missing "
        "FROM edits WHERE said <> '' GROUP BY said HAVING spoken > equal "
        f"ORDER BY spoken - equal DESC, said LIMIT {_PAIRS}"
    )
    inserted = report.rows(
        f"SELECT heard, times FROM edits WHERE kind = 'inserted' ORDER BY times DESC, heard LIMIT {_PAIRS}"
    )
    return [
        Table(
            "Most confused words",
            ["said", "heard", "times"],
            [[row["said"], row["heard"], count(row["times"])] for row in wrong],
            numbers=[2],
        ),
        Table(
            "Words lost most often",
            ["word", "said", "right", "missing"],
            [
                [
                    row["said"],
                    count(row["spoken"]),
                    percent(row["equal"] / row["spoken"]),
                    count(row["missing"]),
                ]
                for row in lost
            ],
            numbers=[1, 2, 3],
        ),
        Table(
            "Words that nobody said",
            ["heard", "times"],
            [[row["heard"], count(row["times"])] for row in inserted],
            numbers=[1],
        ),
    ]


_SPOKEN = (
    "(SELECT unnest(string_split_regex(trim(text), '\\s+')) AS word FROM clips "
    "WHERE error IS NULL AND trim(text) <> '')"
)


def _vocabulary(report: Report) -> Row:
    return report.row(f"SELECT count(*) AS spoken, count(DISTINCT word) AS different FROM {_SPOKEN}")


def _frequent(report: Report) -> Table:
    rows = report.rows(
        f"SELECT word, count(*) AS times, count(*) / sum(count(*)) OVER () AS share FROM {_SPOKEN} "
        f"GROUP BY word ORDER BY times DESC, word LIMIT {_WORDS}"
    )
    cells = [[row["word"], count(row["times"]), percent(row["share"])] for row in rows]
    return Table("Most frequent words", ["word", "times", "share"], cells, numbers=[1, 2])


def _lengths(report: Report) -> list[Chart]:
    heard = "(SELECT text FROM clips WHERE error IS NULL AND text IS NOT NULL)"
    words = r"CASE WHEN trim(text) = '' THEN 0 ELSE len(string_split_regex(trim(text), '\s+')) END"
    return histogram(report, "Words in a transcript", words, "words", source=heard)


def _alphabet(report: Report) -> Table:
    """Characters of both sides: what only one of them has is never right."""
    compared = report.columns.get("ref_text") == "VARCHAR"
    sides = ["SELECT text AS t, 1 AS ours FROM clips WHERE error IS NULL"]
    if compared:
        sides.append("SELECT ref_text AS t, 0 AS ours FROM clips WHERE error IS NULL AND text IS NOT NULL")
    rows = report.rows(
        "SELECT letter, coalesce(sum(ours), 0)::BIGINT AS heard, coalesce(sum(1 - ours), 0)::BIGINT AS said "
        f"FROM (SELECT unnest(string_split(t, '')) AS letter, ours FROM ({' UNION ALL '.join(sides)})) "
        f"WHERE letter <> '' GROUP BY letter ORDER BY (heard = 0 OR said = 0) AND {compared} DESC, "
        f"heard + said DESC, letter LIMIT {_CHARACTERS}"
    )
    cells = [
        [
            row["letter"] if row["letter"].isprintable() and not row["letter"].isspace() else "",
            _called(row["letter"][0]),
            count(row["heard"]),
            *([count(row["said"])] if compared else ()),
        ]
        for row in rows
    ]
    columns = ["", "character", "in transcripts", *(["in references"] if compared else ())]
    about = "first those that only one side has" if compared else ""
    return Table("Alphabet", columns, cells, about, numbers=range(2, len(columns)))


def _called(letter: str) -> str:
    """Its number in Unicode, and its name where one may not know it by sight."""
    named = "" if letter.isascii() and letter.isalnum() else f" {unicodedata.name(letter, '').lower()}"
    return f"U+{ord(letter):04X}{named}"
