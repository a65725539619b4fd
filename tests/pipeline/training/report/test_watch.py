"""What workers tell while they train, as losses, events and news for the driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.storage import Storage, StorageOptions
from pipeline.training.loop.course import StepReport
from pipeline.training.loop.step import Sums
from pipeline.training.report.events import read_events
from pipeline.training.report.losses import ClipLoss, merge
from pipeline.training.report.progress import Step
from pipeline.training.report.watch import Watch, scalars_of

STORAGE = Storage(StorageOptions())


NUMBERS = {
    "transcribe.total": 6.0,
    "transcribe.count": 4.0,
    "transcribe.zeroed": 1.0,
    "transcribe.blank": 3.0,
    "embed.total": 0.0,
    "embed.count": 0.0,
    "frames": 1000.0,
    "clips": 4.0,
}


def report(step: int, sums: Sums | None = None, **other: Any) -> StepReport:
    given = {"rate": 0.5, "grad_norm": 2.0, "learned": True, "bad": (), "unusable": (), "seconds": 0.25}
    return StepReport(step, 0, sums or Sums(), NUMBERS, waited_s=0.01, **{**given, **other})


def clip(clip_id: str) -> ClipLoss:
    return ClipLoss(clip_id, 1.0, "transcribe", 1.5, 250, 3)


def test_numbers_of_a_step() -> None:
    assert scalars_of(report(1), 2e-3) == {
        "transcribe/loss": 1.5,
        "transcribe/zeroed": 1.0,
        "transcribe/blank": 0.75,
        "learning_rate": 1e-3,
        "gradient_norm": 2.0,
        "frames_per_s": 4000.0,
        "waited_s": 0.01,
        "frames": 1000.0,
        "seconds": 0.25,
    }


def test_two_workers_killed_and_started_again(tmp_path: Path) -> None:
    told: list[tuple[str, Any]] = []
    output = str(tmp_path)

    def workers(resumed: int) -> list[Watch]:
        made = [Watch(output, STORAGE, rank, 2e-3, lambda *news: told.append(news)) for rank in range(2)]
        for watch in made:
            watch.resumed(resumed)
        return made

    first = workers(0)
    for step in (1, 2, 3):
        for rank, watch in enumerate(first):
            watch.step(report(step, Sums(clips=[clip(f"{step}-{rank}")]), bad=["x"] if step == 3 else ()))
            if step == 2:
                watch.validated([clip(f"valid-{rank}")])
                watch.measured(
                    2, {"transcribe/wer": 0.5, "transcribe/cer": 0.2, "masked-prediction/loss": 1.0}
                )
                watch.saving(2)
    second = workers(2)
    for rank, watch in enumerate(second):
        watch.step(report(3, Sums(clips=[clip(f"3-{rank}-again")]), bad=["y"], learned=False))
        watch.saving(3)
        watch.close()

    merge(str(tmp_path / "losses"), str(tmp_path / "losses.parquet"), STORAGE)
    rows = pq.read_table(tmp_path / "losses.parquet").to_pylist()
    assert sorted((row["step"], row["split"], row["clip_id"]) for row in rows) == [
        (1, "train", "1-0"),
        (1, "train", "1-1"),
        (2, "train", "2-0"),
        (2, "train", "2-1"),
        (2, "valid", "valid-0"),
        (2, "valid", "valid-1"),
        (3, "train", "3-0-again"),
        (3, "train", "3-1-again"),
    ]
    events = read_events(output, STORAGE)
    assert [(event["kind"], event["step"]) for event in events] == [
        ("step", 1),
        ("step", 2),
        ("valid", 2),
        ("step", 3),
        ("skipped", 3),
    ]
    assert events[-1]["clip_ids"] == ["y"]
    assert events[-1]["reason"] == "the gradient is not finite"
    # The driver hears the leading worker alone.
    assert told[0] == ("stepped", Step(1, 0, {"transcribe": 1.5}, 1e-3, 1000.0, 0.25))
    assert told[2] == ("measured", (2, {"transcribe/wer": 0.5, "masked-prediction/loss": 1.0}))
    assert [kind for kind, _ in told] == ["stepped", "stepped", "measured", "stepped", "stepped"]


def test_a_loss_before_the_start_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        Watch(str(tmp_path), STORAGE, 0, 1e-3, lambda *news: None).step(report(1))
