"""Labels: how many of each, how sure, and which are taken for which."""

from __future__ import annotations

from pipeline.html import Tile
from pipeline.metrics.labels import LabelErrors
from pipeline.report.charts import Section, Table, bars, count, histogram, percent
from pipeline.report.table import Report

_LABELS = 25
_CONFUSIONS = 12


def section(report: Report) -> Section | None:
    if not report.has("label", "label_score"):
        return None
    rows = report.rows(
        "SELECT label, count(*) AS clips, count(*) / sum(count(*)) OVER () AS share, "
        "coalesce(sum(duration_s), 0) / 3600 AS hours, avg(label_score) AS score "
        "FROM clips WHERE label IS NOT NULL GROUP BY label ORDER BY clips DESC, label"
    )
    if not rows:
        return None
    mean = report.row("SELECT avg(label_score) AS mean FROM clips")["mean"]
    tiles = [
        Tile("labels", count(len(rows)), "different"),
        Tile("score", percent(mean), "mean of the best label"),
    ]
    about = f"the {_LABELS} most frequent of {count(len(rows))}" if len(rows) > _LABELS else ""
    charts = [
        bars("Clips of each label", rows[:_LABELS], "label", "clips", about=about),
        *histogram(report, "Score of the best label", "label_score", "score"),
    ]
    tables = []
    if report.columns.get("ref_label") == "VARCHAR":
        accuracy, confusions = _compared(report)
        tiles += accuracy
        tables += confusions
    return Section(
        "labels", "Labels", "What the classifier says of each clip.", tiles, charts, tables, ["label"]
    )


def _compared(report: Report) -> tuple[list[Tile], list[Table]]:
    """With the labels that the input brought along."""
    pairs = report.rows(
        "SELECT ref_label AS said, label AS given, count(*) AS clips, min(clip_id) AS example FROM clips "
        "WHERE error IS NULL AND ref_label IS NOT NULL GROUP BY ALL ORDER BY clips DESC, said, given"
    )
    errors = LabelErrors()
    for pair in pairs:
        errors.pairs[pair["said"], pair["given"]] += pair["clips"]
    if errors.accuracy is None or errors.macro_f1 is None:
        return [], []
    wrong = [pair for pair in pairs if pair["said"] != pair["given"]][:_CONFUSIONS]
    cells = [[pair["said"], pair["given"] or "–", count(pair["clips"]), pair["example"]] for pair in wrong]
    tiles = [
        Tile("accuracy", percent(errors.accuracy), f"of {count(errors.pairs.total())} clips with ref_label"),
        Tile("macro F1", percent(errors.macro_f1)),
    ]
    columns = ["label of the input", "given instead", "clips", "for example"]
    return tiles, [Table("Most confused labels", columns, cells, numbers=[2])] if cells else []
