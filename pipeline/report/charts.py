"""What a section of the page is made of: numbers, tables, and charts as Vega-Lite has them.

Altair writes the charts and checks them against Vega-Lite's schema. Colours are those of the page's style
sheet, which knows light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.html import Tile
from pipeline.report.table import Report, Row
from pipeline.reports.summary import format_hours

if TYPE_CHECKING:
    import altair as alt

COLOURS = [f"var(--c{number})" for number in range(10)]
_BINS = 32
_MOST = 0.995  # of the values are drawn one by one; the rest stands in the last bar
_LAST_PART = "replace(datum.value, regexp('^.*/(?=.)'), '')"  # of a path: its name is enough
_HEIGHT = 150  # pixels
_BAR, _THICKNESS = 22, 15  # of a horizontal bar, with its gap and without


@dataclass(frozen=True)
class Chart:
    """A picture.

    Attributes:
        spec: for Vega-Lite; a datum with `clip_id` can be clicked to hear it.
        wide: as wide as the page.
    """

    title: str
    spec: dict[str, Any]
    about: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text; `numbers` are the columns that are set to the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    about: str = ""
    numbers: Sequence[int] = ()


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        kinds: of clips (see `clips`) that one would hear next.
    """

    id: str
    title: str
    about: str
    tiles: Sequence[Tile] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    kinds: Sequence[str] = field(default_factory=list)


def histogram(
    report: Report, title: str, values: str, x_title: str, *, source: str = "clips", counted: str = "clips"
) -> list[Chart]:
    """How an expression of SQL is spread over the rows of a source; nothing where it has no value."""
    found = (
        f"SELECT x FROM (SELECT ({values})::DOUBLE AS x FROM {source}) WHERE x IS NOT NULL AND isfinite(x)"
    )
    range_ = report.row(
        f"SELECT min(x) AS low, max(x) AS high, quantile_cont(x, {_MOST}) AS most FROM ({found})"
    )
    if range_["low"] is None:
        return []
    step = _step((range_["most"] - range_["low"]) or abs(range_["low"]) or 1.0)
    first = math.floor(range_["low"] / step)
    last = max(math.ceil(range_["most"] / step) - 1, first)
    rows = report.rows(
        f"SELECT least(greatest(floor(x / {step}), {first}), {last})::BIGINT AS bin, count(*) AS n "
        f"FROM ({found}) GROUP BY bin ORDER BY bin"
    )
    beyond = range_["high"] > (last + 1) * step
    data = [
        {
            "low": _round(row["bin"] * step),
            "high": _round((row["bin"] + 1) * step),
            "n": row["n"],
            "range": f"{_round(row['bin'] * step):g} "
            + ("and more" if beyond and row["bin"] == last else f"to {_round((row['bin'] + 1) * step):g}"),
        }
        for row in rows
    ]
    import altair as alt

    chart = (
        alt.Chart(alt.Data(values=data))
        .mark_bar(color=COLOURS[0], binSpacing=1)
        .encode(
            x=alt.X("low:Q", bin="binned", title=x_title),
            x2="high:Q",
            y=alt.Y("n:Q", title=counted, axis=alt.Axis(tickMinStep=1, tickCount=5, format="~s")),
            tooltip=[alt.Tooltip("range:N", title=x_title), alt.Tooltip("n:Q", title=counted, format=",")],
        )
    )
    return [Chart(title, finished(chart))]


def bars(
    title: str, rows: Sequence[Row], name: str, value: str, *, shares: bool = False, about: str = ""
) -> Chart:
    """A bar for each row, in their order; what else a row holds is told where one points at it."""
    import altair as alt

    shown = _LAST_PART if name == "shard" else "datum.value"
    pointed = [
        alt.Tooltip(
            f"{field}:{'N' if isinstance(held, str) else 'Q'}", title=field, format=_format(field, held)
        )
        for field, held in rows[0].items()
    ]
    chart = (
        alt.Chart(alt.Data(values=[*rows]))
        .mark_bar(color=COLOURS[0], cornerRadiusEnd=3, size=_THICKNESS)
        .encode(
            y=alt.Y(f"{name}:N", sort=None, title=None, axis=alt.Axis(labelLimit=150, labelExpr=shown)),
            x=alt.X(
                f"{value}:Q",
                title=value,
                axis=alt.Axis(format="%", tickCount=5)
                if shares
                else alt.Axis(format="~s", tickCount=5, tickMinStep=1),
            ),
            tooltip=pointed,
        )
    )
    return Chart(title, finished(chart, height=max(_BAR * len(rows), _HEIGHT)), about)


def finished(chart: alt.TopLevelMixin, *, height: int = _HEIGHT) -> dict[str, Any]:
    """The chart's JSON, as wide as its place on the page."""
    spec: dict[str, Any] = chart.to_dict()
    spec.pop("config", None)  # Altair's own look
    return {"width": "container", "height": height, **spec}


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def percent(value: float | None, decimals: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{decimals}f} %"


def length(seconds: float | None) -> str:
    """Of audio."""
    if seconds is None:
        return "–"
    return f"{seconds:.1f} s" if seconds < 60 else format_hours(seconds / 3600)


def _format(field: str, held: Any) -> str:
    if isinstance(held, str):
        return ""
    return ".1%" if field in ("WER", "CER", "share") else ",.4~g"


def _step(width: float) -> float:
    """A round number that divides a width into about `_BINS` parts."""
    rough = width / _BINS
    power = 10.0 ** math.floor(math.log10(rough))
    return float(next(_round(one * power) for one in (1, 2, 2.5, 5, 10) if one * power >= rough * 0.999))


def _round(value: float) -> float:
    """Without what binary fractions leave behind: 0.3, not 0.30000000000000004."""
    return float(f"{value:.9g}")
