"""Voices: a map of x-vectors, and how many clips each group of them has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.html import Tile
from pipeline.report.charts import COLOURS, Chart, Section, Table, count, finished, percent
from pipeline.report.table import Report, Row, name_of_column
from pipeline.speakers.clustering import average_linkage
from pipeline.speakers.spec import SpeakersSpec

_POINTS, _FEWEST = 2_000, 3
_NAMED = 9  # values of a column that have a colour of their own
_LARGEST = 20
_GROUP = "group"
_THRESHOLD: float = SpeakersSpec.model_fields["threshold"].default


def section(report: Report, heard: Sequence[str]) -> Section | None:
    if not report.has("embedding"):
        return None
    points = _points(report, heard)
    vectors = np.array([point.pop("embedding") for point in points], np.float32)
    if len(vectors) < _FEWEST or vectors.shape[1] < 2:
        return None
    places, kept = principal_axes(vectors)
    _group(points, vectors, known=report.has_speakers)
    total = report.row("SELECT count(embedding) AS clips FROM clips")["clips"]
    about = (
        f"{count(len(points))} of {count(total)} clips" if total > len(points) else f"{count(total)} clips"
    )
    sizes = _sizes(report, points)
    return Section(
        "voices",
        "Voices",
        "X-vectors on the two axes along which they differ most. Point at one to see whose it is, click to "
        "hear it. Shift and the wheel zoom, dragging moves, a double click goes back.",
        [Tile("x-vectors", count(total), f"of {vectors.shape[1]} numbers"), *sizes[0]],
        [_map(points, places, f"{about}; the axes hold {percent(kept, 0)} of their variance", report)],
        sizes[1],
        [],
    )


def principal_axes(vectors: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], float]:
    """(vectors, 2), the places on the two principal axes, and the share of the variance that they hold.

    Source: Pearson 1901, "On lines and planes of closest fit to systems of points in space". The signs are
    those that make the largest part of each axis positive, so that the same table has the same map.
    """
    centred = vectors - vectors.mean(axis=0)
    left, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)])
    total = float((sizes**2).sum())
    return left[:, :2] * sizes[:2] * signs, float((sizes[:2] ** 2).sum()) / total if total else 1.0


def _points(report: Report, heard: Sequence[str]) -> list[Row]:
    """Clips with x-vectors: those that one can hear, and others drawn at random."""
    columns = [name for name in ("label", "text") if report.has(name)] + report.groups
    names = "".join(f", clips.{name_of_column(name)}" for name in columns)
    group = ("speaker_id", "LEFT JOIN speakers USING (clip_id)") if report.has_speakers else ("NULL", "")
    rows = report.rows(
        f'SELECT clip_id, embedding, {group[0]} AS ".group"{names} FROM clips {group[1]} WHERE clip_id IN '
        f"(SELECT clip_id FROM clips WHERE embedding IS NOT NULL ORDER BY clip_id NOT IN (SELECT unnest(?)), "
        f"{report.drawn} LIMIT {_POINTS}) ORDER BY clip_id",
        list(heard),
    )
    width = Counter(len(row["embedding"]) for row in rows).most_common(1)[0][0] if rows else 0
    usable = [
        row
        for row in rows
        if len(row["embedding"]) == width and np.isfinite(_numbers(row["embedding"])).all()
    ]
    listed = set(heard)
    for row in usable:
        row["heard"] = row["clip_id"] in listed
    return usable


def _numbers(vector: Sequence[float | None]) -> npt.NDArray[np.float32]:
    """A null is no number."""
    return np.array(vector, np.float32)


def _group(points: list[Row], vectors: npt.NDArray[np.float32], *, known: bool) -> None:
    """Gives each point a group: the speaker that was found, or those of the points that belong together."""
    if not known:
        labels = average_linkage(vectors, _THRESHOLD)
        ranks = {label: rank for rank, (label, _) in enumerate(Counter(labels.tolist()).most_common(), 1)}
        for point, label in zip(points, labels.tolist(), strict=True):
            point[".group"] = f"group {ranks[label]}"


def _sizes(report: Report, points: Sequence[Row]) -> tuple[list[Tile], list[Table]]:
    """Groups by size: of all clips where `jobs/speakers.py` found speakers, else of those on the map."""
    if report.has_speakers:
        found = report.row("SELECT count(DISTINCT speaker_id) AS speakers FROM speakers")["speakers"]
        rows = report.rows(
            "SELECT speaker_id AS name, count(*) AS clips, avg(similarity) AS similarity FROM speakers "
            f"WHERE speaker_id IS NOT NULL GROUP BY name ORDER BY clips DESC, name LIMIT {_LARGEST}"
        )
        cells = [[row["name"], count(row["clips"]), f"{row['similarity']:.3f}"] for row in rows]
        columns = ["speaker", "clips", "mean similarity"]
        tile = Tile("speakers", count(found), "found by jobs/speakers.py")
        return [tile], [Table("Largest speakers", columns, cells, numbers=[1, 2])]
    sizes = Counter(point[".group"] for point in points).most_common()
    cells = [[name, count(clips)] for name, clips in sizes[:_LARGEST]]
    about = f"clips of the map, as jobs/speakers.py would group them at its threshold of {_THRESHOLD:g}"
    tile = Tile("groups", count(len(sizes)), "among the clips of the map")
    return [tile], [Table("Largest groups", ["group", "clips"], cells, about, numbers=[1])]


def _colourings(points: Sequence[Row], report: Report) -> dict[str, str]:
    """Columns that tell clips apart without being different for each: the name shown, and the column."""
    found = {"speaker found" if report.has_speakers else _GROUP: ".group"}
    for name in ("label", *report.groups):
        values = {point.get(name) for point in points} - {None}
        if 1 < len(values) <= max(len(points) // 2, 2):
            found.setdefault(name, name)
    return found


def _map(points: Sequence[Row], places: npt.NDArray[np.float32], about: str, report: Report) -> Chart:
    import altair as alt

    colourings = _colourings(points, report)
    named: dict[str, set[Any]] = {
        name: {value for value, _ in Counter(point[column] for point in points).most_common(_NAMED)}
        for name, column in colourings.items()
    }
    data = [
        {
            "clip_id": point["clip_id"],
            "x": round(float(x), 4),
            "y": round(float(y), 4),
            "text": (point.get("text") or "")[:80],
            "heard": point["heard"],
            **{
                f"by{place}": "–"
                if point[column] is None
                else str(point[column])
                if point[column] in named[name]
                else "others"
                for place, (name, column) in enumerate(colourings.items())
            },
        }
        for point, (x, y) in zip(points, places, strict=True)
    ]
    options = [f"by{place}" for place in range(len(colourings))]
    choice = alt.binding_select(options=options, labels=list(colourings), name="colour by ")
    chosen = alt.param(name="colour", value="by0", bind=choice)
    chart = (
        alt.Chart(alt.Data(values=data))
        .transform_calculate(value="datum[colour]")
        .mark_point(filled=True, size=55, stroke="var(--sheet)", strokeWidth=0.5, cursor="pointer")
        .encode(
            x=alt.X("x:Q", title=None, axis=None, scale=alt.Scale(zero=False, padding=12)),
            y=alt.Y("y:Q", title=None, axis=None, scale=alt.Scale(zero=False, padding=12)),
            color=alt.Color(
                "value:N",
                title=None,
                scale=alt.Scale(range=COLOURS),
                legend=alt.Legend(orient="bottom", columns=5, symbolType="circle", labelLimit=140),
            ),
            opacity=alt.condition("datum.heard", alt.value(1), alt.value(0.35)),
            tooltip=[
                alt.Tooltip("clip_id:N", title="clip"),
                alt.Tooltip("value:N", title="colour"),
                alt.Tooltip("text:N"),
            ],
        )
        .add_params(chosen, alt.selection_interval(bind="scales", zoom="wheel![event.shiftKey]"))
    )
    return Chart(
        "Map of voices",
        finished(chart, height=420),
        f"{about}; faint points are not among the clips below",
        wide=True,
    )
