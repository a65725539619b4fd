"""The summary of a run: sums that add up, JSON in a fixed order, text for a person."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from pipeline.metrics.words import WordErrors
from pipeline.reports.summary import EncoderUse, RunSummary, Tally, format_hours, format_summary

ROWS: list[dict[str, Any]] = [
    {"duration_s": 5400.0, "encoder_s": 0.5, "error": None, "text": "one two", "ref_text": "one two"},
    {"duration_s": None, "encoder_s": None, "error": None, "text": "", "ref_text": None},
    {"duration_s": 9.0, "encoder_s": 0.0, "error": {"code": "too_long"}, "text": None, "ref_text": "a"},
    {"duration_s": 1.0, "encoder_s": 0.25, "error": None, "text": "three", "ref_text": "two"},
]


def tally_of(rows: list[dict[str, Any]]) -> Tally:
    tally = Tally({"transcribe": WordErrors()})
    tally.add_rows(rows)
    return tally


def summary_of(tally: Tally, before: Tally | None = None) -> RunSummary:
    return RunSummary(
        run_id="r1",
        output="out",
        tally=tally,
        before=before or Tally({"transcribe": WordErrors()}),
        shards_read=2,
        shards_skipped=1,
        wall_s=10.0,
        spec={"model": "m"},
    )


def test_tallies_add_up() -> None:
    parts = tally_of(ROWS[:2])
    parts.add(tally_of(ROWS[2:]))
    assert parts == tally_of(ROWS)
    assert (parts.clips, parts.annotated, parts.seconds, parts.encoder_s) == (4, 3, 5401.0, 0.75)
    assert parts.errors == Counter(too_long=1)
    assert parts.error_rate == 0.25
    assert Tally({}).error_rate == 0.0


def test_json_has_its_keys_in_order() -> None:
    facts = summary_of(tally_of(ROWS)).as_json()
    run = ["run_id", "output", "shards_read", "shards_skipped", "shards_undelivered"]
    run += ["clips_done_before", "hours_done_before", "errors_done_before", "wall_s"]
    run += ["work_s", "rtfx", "rtfx_work", "spec"]
    sums = ["clips", "annotated", "hours", "encoder_s", "errors", "error_rate"]
    metrics = ["scored_clips", "wer", "cer", "word_edits"]
    assert list(facts) == [*run, *sums, *metrics]
    used = replace(summary_of(tally_of(ROWS)), encoder=EncoderUse(3, 400, [["transcribe"]]))
    assert list(used.as_json()) == [*run, "stage_s", "models", "encoder", *sums, *metrics]


def test_a_start_counts_and_times_its_own_clips_and_rates_are_of_the_whole_run() -> None:
    facts = summary_of(tally_of(ROWS[3:]), before=tally_of(ROWS[:3])).as_json()
    assert (facts["clips"], facts["annotated"], facts["hours"], facts["errors"]) == (1, 1, 1 / 3600, {})
    assert (facts["encoder_s"], facts["wall_s"], facts["rtfx"]) == (0.25, 10.0, 0.1)
    assert (facts["work_s"], facts["rtfx_work"]) == (None, None)
    assert facts["clips_done_before"] == 3
    assert facts["hours_done_before"] == 1.5
    assert facts["errors_done_before"] == {"too_long": 1}
    assert facts["error_rate"] == 0.25
    assert (facts["scored_clips"], facts["wer"]) == (2, 1 / 3)


def test_text() -> None:
    summary = replace(
        summary_of(tally_of(ROWS)),
        stage_s={"read": 1.5},
        encoder=EncoderUse(3, 400, [["transcribe", "embed"], ["classify"]], "bfloat16"),
        work_s=4.0,
    )
    assert format_summary(summary).splitlines() == [
        "clips       4 (3 annotated)",
        "audio       1.50 h",
        "errors      too_long 1",
        "shards      2 read, 1 finished before and skipped",
        "wall time   10.0 s",
        "RTFx        1350.2 over the 4.0 s of work (seconds of audio per second)",
        "            540.1 over the whole wall time",
        "            1.5 s in read",
        "encoder     3 passes over 400 frames (one for transcribe, embed; one for classify)",
        "dtype       bfloat16",
        "WER         33.33% over 2 clips with a reference",
        "CER         40.00%",
        "output      out",
    ]


def test_text_of_a_run_that_went_on() -> None:
    summary = replace(summary_of(tally_of(ROWS[3:]), before=tally_of(ROWS[:3])), work_s=2.0)
    assert format_summary(summary).splitlines() == [
        "clips       1 (1 annotated)",
        "audio       0.0 min",
        "errors      none",
        "done before 3 clips more (2 annotated), 1.50 h; errors: too_long 1",
        "            written by starts of this run that did not finish it",
        "shards      2 read, 1 finished before and skipped",
        "wall time   10.0 s",
        "RTFx        0.5 over the 2.0 s of work (seconds of audio per second)",
        "            0.1 over the whole wall time",
        "WER         33.33% over 2 clips with a reference",
        "CER         40.00%",
        "            of all clips of the run, those done before too",
        "output      out",
    ]


def test_a_counter_that_died_counted_nothing() -> None:
    summary = replace(summary_of(tally_of(ROWS)), encoder=EncoderUse(None, None, [["transcribe"]]))
    assert "encoder     passes not counted, their counter died (one for transcribe)" in format_summary(
        summary
    )
    assert summary.as_json()["encoder"] == {
        "passes": None,
        "frames": None,
        "backbones": [["transcribe"]],
        "dtype": "float32",
    }


def test_nothing_happened() -> None:
    lines = format_summary(summary_of(Tally({"transcribe": WordErrors()}))).splitlines()
    assert lines[:3] == ["clips       0 (0 annotated)", "audio       0.0 min", "errors      none"]
    assert not any(line.startswith(("WER", "RTFx", "encoder")) for line in lines)


def test_hours() -> None:
    assert [format_hours(hours) for hours in (0.5, 1.0, 1234.567)] == ["30.0 min", "1.00 h", "1234.57 h"]
