"""`--plan` and the summary of a run, as a person reads them."""

from __future__ import annotations

from dataclasses import replace

from pipeline.training.examples.statistics import Statistics
from pipeline.training.report.plan import TrainingPlan, Unusable, format_plan
from pipeline.training.result import Result, format_result

FOUND = Statistics(
    100, 98, 2.5, {"transcribe": 98}, None, None, None, {("transcribe", "empty_label"): 4}, hints=["do this"]
)
PLAN = TrainingPlan(
    output="s3://models/ours",
    found=FOUND,
    unusable=[Unusable("transcribe", "empty_label", 4, [("a.tar#1", ""), ("a.tar#2", "the text is '?'")])],
    validation="7 examples, 6.0 min: held out of --train, 1 of 9 speakers (anna)",
    budget=4096,
    packs=25,
    packs_per_step=2,
    steps=26,
    epoch_s=90.0,
    basis="from 3 packs, timed here on 2 thread(s)",
)
RESULT = Result(
    identity="sha256:0",
    checkpoints={task: f"s3://models/ours/{task}" for task in ("transcribe", "embed")},
    step=20,
    max_steps=26,
    metrics={"transcribe/wer": 0.0725, "transcribe/blank_only": 0.5, "transcribe/one_word": 0.0,
             "transcribe/loss": 0.25, "embed/eer": 0.1},
    backbone="sha256:1",
    hours=2.5,
    examples=98,
    seconds=3700.0,
    skipped=0,
    unusable=0,
    validation="7 examples, 6.0 min: held out of --train, 1 of 9 speakers (anna)",
)  # fmt: skip


def test_the_plan() -> None:
    assert format_plan(PLAN).splitlines() == [
        "examples       98 of 100 rows, 2.50 h",
        "validation     7 examples, 6.0 min: held out of --train, 1 of 9 speakers (anna)",
        "transcribe     98 examples",
        "packs          25 an epoch, of at most 4,096 frames",
        "steps          13 an epoch, of 2 pack(s); 26 in all, 2 epochs",
        "time           about 2 min an epoch, 3 min in all, without validation",
        "               from 3 packs, timed here on 2 thread(s)",
        "hint           do this",
        "",
        "not learned from (all of them: s3://models/ours/data/skipped.parquet once the run begins)",
        "4 empty_label (transcribe)",
        "  a.tar#1",
        "  a.tar#2  the text is '?'",
        "  … and 2 more",
    ]


def test_what_a_plan_cannot_know() -> None:
    plan = replace(PLAN, validation=None, steps=None, epoch_s=None, basis="GPUs are not tried", unusable=[])
    lines = format_plan(plan).splitlines()
    assert lines[1].startswith("validation     none: the last checkpoint is taken")
    assert lines[-4:] == [
        "steps          13 an epoch, of 2 pack(s)",
        "time           ?",
        "               GPUs are not tried",
        "hint           do this",
    ]


def test_the_summary() -> None:
    assert format_result(RESULT).splitlines() == [
        "examples    98, 2.50 h",
        "steps       26 in 1 h 2 min",
        "validation  7 examples, 6.0 min: held out of --train, 1 of 9 speakers (anna)",
        "transcribe  WER 7.25%, loss 0.25, clips without a word 50.00%",
        "embed       EER 10.00%",
        "checkpoint  s3://models/ours/transcribe (step 20, the best; one encoder for all)",
        "checkpoint  s3://models/ours/embed (step 20, the best; one encoder for all)",
        "page        s3://models/ours/training.html",
        "losses      s3://models/ours/losses.parquet",
    ]


def test_the_summary_of_a_run_without_validation() -> None:
    lines = format_result(replace(RESULT, metrics={}, skipped=3, validation=None)).splitlines()
    assert lines[1].endswith("3 had clips whose loss or gradient was not finite, see events.jsonl")
    assert lines[2] == "transcribe  nothing was held out to measure it on"
    assert "(step 20, the last" in lines[4]
