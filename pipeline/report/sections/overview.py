"""What there is: clips, hours, errors, and how sure and how fast the models were."""

from __future__ import annotations

from pipeline.html import Tile
from pipeline.report.charts import Chart, Section, Table, bars, count, histogram, length, percent
from pipeline.report.table import Report

_SHARDS = 15  # with the most errors
_FORMATS = 12
_CODES = 12


def section(report: Report) -> Section:
    return Section(
        "overview",
        "Overview",
        "All clips of the table, whatever run wrote them.",
        _tiles(report),
        [*_spread(report), *_errors(report)],
        [*_shards(report), *_formats(report)],
        ["error", "random"],
    )


def _tiles(report: Report) -> list[Tile]:
    speed = "sum(duration_s) / nullif(sum(encoder_s), 0)" if report.has("encoder_s") else "NULL"
    total = report.row(
        "SELECT count(*) AS clips, count(error) AS errors, count(DISTINCT shard) AS shards FROM clips"
    ) | report.row(
        f"SELECT coalesce(sum(duration_s), 0) AS seconds, {speed} AS speed FROM clips WHERE error IS NULL"
    )
    tiles = [
        Tile("clips", count(total["clips"]), f"of {count(total['shards'])} shards"),
        Tile("audio", length(total["seconds"]), "annotated"),
        Tile(
            "errors", count(total["errors"]), percent(total["errors"] / total["clips"], 2) + " of the clips"
        ),
    ]
    if report.has("text_confidence"):
        mean = report.row("SELECT avg(text_confidence) AS mean FROM clips")["mean"]
        tiles.append(Tile("confidence", percent(mean), "mean of the transcripts"))
    if total["speed"]:
        tiles.append(Tile("encoder", f"{count(total['speed'])} ×", "real time"))
    return tiles


def _spread(report: Report) -> list[Chart]:
    good = "(SELECT * FROM clips WHERE error IS NULL)"
    charts = histogram(report, "Duration", "duration_s", "seconds", source=good)
    if report.has("text_confidence"):
        charts += histogram(report, "Confidence", "text_confidence", "of the transcript", source=good)
    if report.has("words"):
        paced = "60 * len(words) / nullif(words[-1].end_s - words[1].start_s, 0)"
        charts += histogram(
            report, "Pace", paced, "words a minute", source=f"(SELECT * FROM {good} WHERE len(words) > 2)"
        )
    if report.has("encoder_s"):
        speed = "duration_s / nullif(encoder_s, 0)"
        charts += histogram(report, "Speed", speed, "seconds of audio per second of the encoder", source=good)
    return charts


def _errors(report: Report) -> list[Chart]:
    rows = report.rows(
        "SELECT error.code AS code, count(*) AS clips, any_value(error.stage) AS stage "
        f"FROM clips WHERE error IS NOT NULL GROUP BY code ORDER BY clips DESC, code LIMIT {_CODES}"
    )
    return [bars("Errors by code", rows, "code", "clips")] if rows else []


def _shards(report: Report) -> list[Table]:
    rows = report.rows(
        "SELECT shard, count(error) AS errors, count(*) AS clips, mode(error.code) AS code, "
        "min(error.message) AS example FROM clips GROUP BY shard HAVING errors > 0 "
        f"ORDER BY errors DESC, shard LIMIT {_SHARDS}"
    )
    if not rows:
        return []
    cells = [
        [row["shard"], count(row["errors"]), count(row["clips"]), row["code"], row["example"] or ""]
        for row in rows
    ]
    columns = ["shard", "errors", "of clips", "most frequent code", "for example"]
    return [Table("Shards with errors", columns, cells, numbers=[1, 2])]


def _formats(report: Report) -> list[Table]:
    if not report.has("sample_rate", "channels"):
        return []
    mean = "avg(text_confidence)" if report.has("text_confidence") else "NULL"
    rows = report.rows(
        r"SELECT coalesce(nullif(regexp_extract(shard, '\.(\w+)$', 1), ''), '–') AS format, sample_rate, "
        f"channels, count(*) AS clips, sum(duration_s) AS seconds, {mean} AS confidence FROM clips "
        f"WHERE error IS NULL GROUP BY ALL ORDER BY clips DESC, format, sample_rate LIMIT {_FORMATS}"
    )
    cells = [
        [
            row["format"],
            count(row["sample_rate"]),
            count(row["channels"]),
            count(row["clips"]),
            length(row["seconds"]),
            *([percent(row["confidence"])] if report.has("text_confidence") else ()),
        ]
        for row in rows
    ]
    columns = ["format", "sample rate", "channels", "clips", "audio"]
    columns += ["mean confidence"] if report.has("text_confidence") else []
    return [Table("What came in", columns, cells, numbers=range(1, len(columns)))] if cells else []
