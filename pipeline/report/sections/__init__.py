"""The parts of the page, each made of what the table holds; what it lacks has no part."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.report.charts import Section
from pipeline.report.sections import labels, overview, speakers, text, voices
from pipeline.report.table import Report

__all__ = ["sections", "voices"]


def sections(report: Report, heard: Sequence[str]) -> list[Section]:
    """All parts, in the order of the page.

    Args:
        heard: ids of the clips that the page lists; maps have these before others.
    """
    found = [
        overview.section(report),
        text.section(report),
        labels.section(report),
        voices.section(report, heard),
        speakers.section(report),
    ]
    return [section for section in found if section is not None]
