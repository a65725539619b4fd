"""A run in pieces is the run in one piece, to the bit."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.errors import JobError
from pipeline.training.loop.worker import Training
from pipeline.training.state.checkpoints import Checkpoints, Kept, Weights
from tests.pipeline.training.loop.runs import (
    FailingStorage,
    KilledError,
    clips_of,
    events_of,
    losses_of,
    run,
    snapshot_of,
    training_of,
)
from tests.pipeline.training.tables import STORAGE

STEPS = 60
# After a step, or at a file that is then not there.
KILLS: list[int | str] = [
    *(1, "weights.safetensors", 5, 6, "progress.json", 13, 14, "complete.json", "-rank-0000.parquet"),
    *(29, "average.safetensors", 44, "optimiser.pt", 59, 60, "complete.json"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Training:
    training = training_of(
        tmp_path_factory.mktemp("resume"),
        ema_decay=0.95,
        freeze_encoder_steps=9,
        max_steps=STEPS,
        save_steps=4,
    )
    run(training)
    return training


def assert_same(found: Weights | None, expected: Weights | None) -> None:
    assert found is not None
    assert expected is not None
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


@pytest.mark.slow
def test_pieces_are_the_whole(whole: Training, tmp_path: Path) -> None:
    pieces = replace(whole, output=str(tmp_path / "out"))
    begun = []
    for kill in KILLS:
        killed = replace(
            pieces, storage=FailingStorage(STORAGE.options, dies_at=kill if isinstance(kill, str) else "")
        )
        with pytest.raises(KilledError):
            run(killed, kill_at=kill if isinstance(kill, int) else None)
        begun.append(Checkpoints(pieces.output, STORAGE).newest() or 0)
    assert begun == sorted(begun)
    assert len(set(begun)) == 6
    run(pieces)

    found, expected = snapshot_of(pieces), snapshot_of(whole)
    assert_same(found.weights, expected.weights)
    assert_same(found.average, expected.average)
    assert found.optimiser.keys() == expected.optimiser.keys()
    for name, state in expected.optimiser.items():
        assert_same(found.optimiser[name], state)
    assert found.progress.measured == expected.progress.measured
    assert (found.progress.step, found.progress.skipped) == (STEPS, 0)

    assert clips_of(pieces) == clips_of(whole)
    assert len(losses_of(pieces)) == len(losses_of(whole))
    assert [event["step"] for event in events_of(pieces, "step")] == list(range(1, STEPS + 1))
    told = ("transcribe/loss", "classify/loss", "learning_rate", "gradient_norm")
    for found_event, event in zip(events_of(pieces, "step"), events_of(whole, "step"), strict=True):
        assert [found_event[tag] for tag in told] == [event[tag] for tag in told]
    assert events_of(pieces, "valid") == events_of(whole, "valid")
    assert _held(pieces) == _held(whole)


def _held(training: Training) -> list[str]:
    return sorted(path.name for path in Path(training.output, "checkpoints").iterdir())


def test_the_encoder_joins_in_when_it_is_to(whole: Training) -> None:
    """Of what was not learned Adam knows nothing."""
    optimiser = snapshot_of(whole).optimiser
    steps = {name.startswith("encoder."): int(state["step"]) for name, state in optimiser.items()}
    assert steps == {True: STEPS - 9, False: STEPS}


def test_a_run_that_is_over_does_nothing_more(whole: Training) -> None:
    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in Path(whole.output, "checkpoints").rglob("*")}

    before = written()
    outcome = run(whole, kill_at=STEPS + 1)
    assert outcome.progress.step == STEPS
    assert written() == before


def test_a_run_of_other_settings_does_not_go_on(whole: Training) -> None:
    with pytest.raises(JobError, match="other settings or data: use another --output, or --overwrite"):
        run(replace(whole, course=replace(whole.course, identity="another")))


def test_patience_is_remembered(tmp_path: Path) -> None:
    """Also by a start that finds a run which was killed after it had lost patience."""
    kept = Kept(metric="classify/accuracy", higher=True)
    rates = replace(training_of(tmp_path).rates, usual=1e-12, new=1e-12)  # nothing gets better
    training = replace(training_of(tmp_path, patience=2, eval_steps=3, kept=kept, max_steps=40), rates=rates)
    outcome = run(training)
    assert [measured["step"] for measured in outcome.progress.measured] == [3, 6, 9]
    assert (outcome.progress.step, outcome.problem) == (9, None)
    again = run(training, kill_at=10)
    assert again.progress.step == 9


def test_devices_and_disks_may_be_others(tmp_path: Path) -> None:
    """What a pack holds, and in which order, was settled when the run began."""
    whole = training_of(tmp_path, max_steps=STEPS, save_steps=4)
    run(whole)
    pieces = replace(whole, output=str(tmp_path / "pieces"))
    with pytest.raises(KilledError):
        run(pieces, kill_at=9)
    run(replace(pieces, data=replace(pieces.data, budget=400, window_frames=100)))
    assert clips_of(pieces) == clips_of(whole)
    found, expected = ([row for row in losses_of(one) if row["split"] == "train"] for one in (pieces, whole))
    assert found == expected


def test_a_metric_that_is_no_number_is_none(tmp_path: Path) -> None:
    """A run that diverges can still be read, and go on."""
    wild = training_of(tmp_path, max_steps=4, save_steps=1)
    run(replace(wild, rates=replace(wild.rates, usual=1e18, new=1e18)))
    progress = Checkpoints(wild.output, STORAGE).load(4).progress
    assert progress.step == 4
    assert all(math.isfinite(value) for found in progress.measured for value in found.values())
