"""Diarization: how much is spoken, by how many, how long at a time, and how much of it at once."""

from __future__ import annotations

from pipeline.html import Tile
from pipeline.report.charts import COLOURS, Chart, Section, bars, count, finished, histogram, length, percent
from pipeline.report.clips import PEOPLE
from pipeline.report.table import Report, Row

_TIMELINES = 4  # recordings, those in which most speakers take the most turns
_LANE = 22  # pixels of a speaker
_MOST_TURNS = 400  # of one that is drawn


def prepare(report: Report) -> None:
    """Makes the table `spoken`: of each clip the shares of its frames with speech, and with overlap."""
    if report.has("frame_activity"):
        report.database.execute(
            "CREATE TABLE spoken AS SELECT clip_id, len(frame_activity) AS frames, "
            "len(list_filter(frame_activity, lambda active: active > 0)) / frames AS speech, "
            "len(list_filter(frame_activity, lambda active: bit_count(active) > 1)) / frames AS overlap "
            "FROM clips WHERE len(frame_activity) > 0"
        )


def section(report: Report) -> Section | None:
    if not report.has("segments"):
        return None
    tiles, charts = [], []
    turns = report.row(
        "SELECT count(*) AS turns, avg(end_s - start_s) AS mean, sum(end_s - start_s) AS seconds FROM "
        "(SELECT unnest(segments, recursive := true) FROM clips)"
    )
    if not turns["turns"]:
        return None
    tiles = [
        Tile("turns", count(turns["turns"]), f"{turns['mean']:.1f} s each, on average"),
        Tile("spoken", length(turns["seconds"]), "of all speakers together"),
    ]
    people = report.rows(
        "SELECT people::VARCHAR AS speakers, count(*) AS recordings FROM (SELECT "
        f"{PEOPLE} AS people FROM clips "
        "WHERE segments IS NOT NULL) GROUP BY people ORDER BY people"
    )
    charts = [bars("Speakers of a recording", people, "speakers", "recordings")]
    charts += histogram(
        report,
        "Length of a turn",
        "turn.end_s - turn.start_s",
        "seconds",
        source="(SELECT unnest(segments) AS turn FROM clips)",
        counted="turns",
    )
    if report.has("frame_activity"):
        shares = report.row(
            "SELECT sum(speech * frames) / sum(frames) AS speech, "
            "sum(overlap * frames) / sum(frames) AS overlap FROM spoken"
        )
        tiles += [
            Tile("speech", percent(shares["speech"]), "of the time"),
            Tile("overlap", percent(shares["overlap"]), "of the time, several at once"),
        ]
        charts += histogram(
            report, "Speech in a recording", "100 * speech", "percent of its time", source="spoken"
        )
        charts += histogram(
            report, "Overlap in a recording", "100 * overlap", "percent of its time", source="spoken"
        )
    return Section(
        "speakers",
        "Who speaks when",
        "Speakers are told apart inside a recording: speaker_0 of two recordings are two people.",
        tiles,
        [*charts, *_timelines(report)],
        [],
        ["speakers", "overlap"],
    )


def _timelines(report: Report) -> list[Chart]:
    recordings = report.rows(
        "SELECT clip_id, segments, duration_s FROM clips "
        f"WHERE len(segments) BETWEEN 2 AND {_MOST_TURNS} AND duration_s IS NOT NULL ORDER BY "
        f"{PEOPLE} DESC, len(segments) DESC, clip_id LIMIT {_TIMELINES}"
    )
    return [_timeline(row) for row in recordings]


def _timeline(row: Row) -> Chart:
    import altair as alt

    turns = [
        {
            "clip_id": row["clip_id"],
            "speaker": turn["speaker"],
            "start": round(turn["start_s"], 3),
            "end": round(turn["end_s"], 3),
        }
        for turn in row["segments"]
    ]
    people = sorted({turn["speaker"] for turn in turns})
    chart = (
        alt.Chart(alt.Data(values=turns))
        .mark_bar(height=12, cornerRadius=3)
        .encode(
            x=alt.X("start:Q", title="seconds", scale=alt.Scale(domain=[0, row["duration_s"]], nice=False)),
            x2="end:Q",
            y=alt.Y("speaker:N", title=None, sort=people),
            color=alt.Color(
                "speaker:N", legend=None, scale=alt.Scale(domain=people, range=COLOURS[: len(people)])
            ),
            tooltip=["speaker:N", alt.Tooltip("start:Q", format=".2f"), alt.Tooltip("end:Q", format=".2f")],
        )
    )
    return Chart(row["clip_id"], finished(chart, height=_LANE * len(people)), wide=True)
