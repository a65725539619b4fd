"""Losses, gradients and features that are not finite: told by clip, learned from never."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.training.loop.worker import Training
from pipeline.training.report.events import NOT_FINITE
from pipeline.training.state.checkpoints import Kept
from tests.pipeline.training.loop.runs import (
    clips_of,
    events_of,
    losses_of,
    order_of,
    poisoned,
    run,
    training_of,
    weights_of,
)

STEPS = 8  # the first is an epoch of seven packs
BAD = "t03"


def ids(training: Training, step: int) -> list[str]:
    order = order_of(training)
    epoch, number = divmod(step - 1, len(order))
    return [f"t{example:02}" for example in order.packs(epoch)[number].examples]


def same(training: Training, step: int) -> bool:
    """Whether a step changed nothing."""
    after, before = weights_of(training, step), weights_of(training, step - 1)
    return all(torch.equal(after[name], weight) for name, weight in before.items())


@pytest.fixture
def healthy(tmp_path: Path) -> Training:
    kept = Kept(last=99)
    return training_of(tmp_path, max_steps=STEPS, save_steps=1, packs_per_step=1, kept=kept, ema_decay=0.9)


@pytest.mark.parametrize("gradient", [False, True], ids=["loss", "gradient"])
def test_what_is_not_finite_changes_nothing(healthy: Training, gradient: bool) -> None:
    training = poisoned(healthy, BAD, gradient=gradient)
    outcome = run(training)
    steps = [step for step in range(1, STEPS + 1) if BAD in ids(training, step)]
    assert outcome.problem is None
    assert outcome.progress.skipped == len(steps) > 0
    events = events_of(training, "skipped")
    assert [event["step"] for event in events] == steps
    for event in events:
        assert event["clip_ids"] == ids(training, event["step"])
        assert event["reason"] == f"the {'gradient' if gradient else 'loss'} is not finite"
    assert [step for step in range(2, STEPS + 1) if same(training, step)] == [one for one in steps if one > 1]
    assert {step for step, _ in clips_of(training)} == set(range(1, STEPS + 1)) - set(steps)
    assert all(np.isfinite(row["loss"]) for row in losses_of(training))


def test_too_much_of_it_ends_the_run(healthy: Training) -> None:
    training = poisoned(healthy, *(f"t{number:02}" for number in range(12)))
    training = replace(training, course=replace(training.course, max_skipped=2))
    outcome = run(training)
    assert outcome.progress.step == 3
    named = ", ".join(ids(training, 3))
    assert outcome.problem == (
        f"3 steps had a loss or a gradient that is not finite, the last one step 3 with {named}; "
        "the newest checkpoint is that of step 2"
    )
    assert run(training).problem == outcome.problem  # the same command comes to the same


def test_features_that_are_not_finite_are_told(tmp_path: Path) -> None:
    training = training_of(tmp_path, max_steps=8, eval_steps=8, broken=["t03", "v01"])
    outcome = run(training)
    assert outcome.problem is None
    assert outcome.progress.skipped == 0
    told = [(event["clip_ids"], event["reason"]) for event in events_of(training, "skipped")]
    assert told == [(["t03"], NOT_FINITE), (["v01"], NOT_FINITE)]
    used = {f"t{number:02}" for number in range(12)} | {f"v{number:02}" for number in range(5)}
    assert {row["clip_id"] for row in losses_of(training)} == used - {"t03", "v01"}
