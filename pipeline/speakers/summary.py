"""What came of a search for speakers, as facts, as JSON and as text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.reports.summary import format_lines
from pipeline.speakers.trials import Verification, describe_missing


@dataclass(frozen=True)
class TrialsSummary:
    """A trial list, scored.

    Attributes:
        skipped: trials of which a name has no embedding.
        missing: those names, by why.
    """

    verification: Verification
    skipped: int
    missing: dict[str, list[str]]


@dataclass(frozen=True)
class Agreement:
    """How well the speakers found agree with those that the input names; see `agreement`."""

    clips: int
    speakers: int
    purity: float
    homogeneity: float
    completeness: float
    v_measure: float


@dataclass(frozen=True)
class Speaker:
    """One of the largest; without hours where the table has no durations."""

    speaker_id: str
    clips: int
    hours: float | None


@dataclass(frozen=True)
class SpeakersFound:
    """The table of speakers."""

    threshold: float
    method: str
    clips: int
    embedded: int
    speakers: int
    speakers_of_one_clip: int
    largest: list[Speaker]
    reference: Agreement | None
    output: str


@dataclass(frozen=True)
class Summary:
    """What was asked for of the table."""

    table: str
    trials: TrialsSummary | None = None
    found: SpeakersFound | None = None


def as_json(summary: Summary) -> dict[str, Any]:
    facts: dict[str, Any] = {"table": summary.table}
    if summary.trials is not None:
        facts["trials"] = _trials_as_json(summary.trials)
    if summary.found is not None:
        facts |= asdict(summary.found)
        for speaker in facts["largest"]:
            if speaker["hours"] is None:
                del speaker["hours"]
    return facts


def format_summary(summary: Summary) -> str:
    """The summary as a person reads it at the end of a run."""
    lines: list[tuple[str, str]] = []
    if summary.trials is not None:
        lines += _trial_lines(summary.trials)
    if summary.found is not None:
        lines += _speaker_lines(summary.found)
    return format_lines(lines)


def _trials_as_json(trials: TrialsSummary) -> dict[str, Any]:
    return {
        **asdict(trials.verification),
        "min_dcf": [
            {"p_target": p_target, "cost": cost, "threshold": threshold if math.isfinite(threshold) else None}
            for p_target, (cost, threshold) in trials.verification.min_dcf.items()
        ],
        "skipped": trials.skipped,
        "missing_names": {why: len(names) for why, names in trials.missing.items()},
        "missing": describe_missing(trials.missing),
    }


def _trial_lines(trials: TrialsSummary) -> Iterator[tuple[str, str]]:
    scored = trials.verification
    yield "trials", f"{scored.targets} target, {scored.nontargets} nontarget"
    if trials.skipped:
        yield "", f"{trials.skipped} skipped: {describe_missing(trials.missing)}"
    yield "EER", f"{scored.eer:.2%} at {scored.eer_threshold:.3f}"
    for p_target, (cost, threshold) in scored.min_dcf.items():
        where = f"at {threshold:.3f}" if math.isfinite(threshold) else "where all are rejected"
        yield "minDCF", f"{cost:.3f} {where} (p_target {p_target:g})"


def _speaker_lines(found: SpeakersFound) -> Iterator[tuple[str, str]]:
    yield "clips", f"{found.clips} ({found.embedded} with an embedding)"
    yield "speakers", f"{found.speakers}, {found.speakers_of_one_clip} of a single clip"
    yield "threshold", f"{found.threshold:g} ({found.method})"
    for speaker in found.largest:
        hours = "" if speaker.hours is None else f", {speaker.hours:.2f} h"
        yield "", f"{speaker.speaker_id}: {speaker.clips} clips{hours}"
    if (given := found.reference) is not None:
        yield "purity", f"{given.purity:.3f} by the {given.speakers} speakers of the input"
        parts = f"homogeneity {given.homogeneity:.3f}, completeness {given.completeness:.3f}"
        yield "V-measure", f"{given.v_measure:.3f} ({parts})"
    yield "output", found.output
