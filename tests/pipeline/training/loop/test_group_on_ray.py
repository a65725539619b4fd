"""Workers on Ray of which one has a problem: the others do not wait for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from pipeline.errors import BrokenOffError, JobError
from pipeline.training.group import Group
from pipeline.training.loop.course import Outcome
from pipeline.training.loop.workers import Workers, run_on_workers, workers_of
from pipeline.training.spec.running import ClusterPart
from pipeline.training.state.checkpoints import Progress
from tests.pipeline.training.tables import STORAGE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]
TWO = Workers(2, cpus=1, max_failures=1)
Work = Callable[[Group, Any], Outcome]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")


def run(work: Work, place: Path) -> tuple[list[Any], Outcome | JobError]:
    """What was told, and what it came to."""
    told: list[Any] = []
    try:
        return told, run_on_workers(work, TWO, str(place), STORAGE, lambda kind, news: told.append(news))
    except JobError as problem:
        return told, problem


def test_what_one_worker_says_to_a_person_ends_all(tmp_path: Path) -> None:
    def work(group: Group, tell: Any) -> Outcome:
        if not group.leads:
            raise JobError("the disk of this node is full")
        group.wait()
        return Outcome(Progress(), 0)

    told, problem = run(work, tmp_path)
    assert type(problem) is JobError
    assert str(problem) == "the disk of this node is full"
    assert [news for news in told if "worker 1" in news] == []


def test_what_goes_wrong_again_and_again_is_said_in_a_line(tmp_path: Path) -> None:
    def work(group: Group, tell: Any) -> Outcome:
        tell("news", f"of {group.size}")
        if not group.leads:
            raise ValueError("seven is\nnot eight")
        group.wait()
        return Outcome(Progress(), 0)

    told, problem = run(work, tmp_path)
    assert type(problem) is BrokenOffError
    assert "worker 1 died again and again (ValueError: seven is)" in str(problem)
    assert "worker 1 died (ValueError: seven is)" in told
    assert told.count("of 2") >= 2


def test_workers_share_what_there_is() -> None:
    def cpus(**given: Any) -> int:
        return workers_of(ClusterPart.model_validate(given), 3).cpus

    assert ray.cluster_resources()["CPU"] == 2
    assert [cpus(), cpus(num_workers=2), cpus(threads_per_worker=1), cpus(num_workers="1:2")] == [2, 1, 1, 1]
    for given in ({"num_workers": 3}, {"num_workers": 2, "threads_per_worker": 2}, {"num_workers": "3:4"}):
        with pytest.raises(JobError, match=r"the cluster has room for [12] of [12] CPUs"):
            cpus(**given)
