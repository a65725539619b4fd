"""A run that stands still says why."""

from __future__ import annotations

import logging
import re
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from urllib.request import urlopen

import pyarrow as pa
import pytest
import ray

from pipeline.engine.cluster import Resources, allocate, shortage
from pipeline.engine.run_state import RunState, Sums, count_rows, timed, watched
from pipeline.errors import ClipError, Code, Stage
from pipeline.schema import ERROR
from pipeline.spec.parts import ComputeSpec

pytestmark = pytest.mark.usefixtures("local_ray")


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def resources() -> Resources:
    return allocate(ComputeSpec(num_gpus_per_actor=0))


def test_a_run_without_progress_says_so_once(resources: Resources, caplog: pytest.LogCaptureFixture) -> None:
    state = RunState()
    with caplog.at_level(logging.WARNING, "pipeline"), watched(state, resources, after_s=0.3):
        wait_for(lambda: len(caplog.messages) == 1)
        state.report("read")("seconds", 1.0)
        wait_for(lambda: len(caplog.messages) == 2)
    state.close()
    for message in caplog.messages:
        assert message.startswith("no progress for 0.005 minutes: the cluster has 2 CPUs (")


def test_counts_are_shown_while_a_run_works(resources: Resources) -> None:
    state, seen = RunState(), list[tuple[Sums, float]]()
    with watched(state, resources, lambda sums, seconds: seen.append((sums, seconds)), after_s=0.3):
        state.report("annotate")("clips", 3)
        wait_for(lambda: bool(seen) and seen[-1][0] == {("annotate", "clips"): 3.0})
    state.close()
    assert [seconds for _, seconds in seen] == sorted(seconds for _, seconds in seen)


def test_the_clusters_prometheus_has_the_counts(resources: Resources) -> None:
    state = RunState()
    report = state.report("annotate")
    for what, amount in (("clips", 3), ("errors", 0), ("audio_s", 7.5), ("encoder_s", 0.5), ("passes", 1)):
        report(what, amount)
    node = ray.nodes()[0]
    page = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    held: dict[str, dict[str, float]] = defaultdict(dict)  # by the labels: other runs' counts are there too

    def scraped() -> bool:
        with urlopen(page, timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if found := re.match(r"ray_(w2vbert_\w+)\{(.*)\} (\S+)$", line):
                    held[found[2]][found[1]] = float(found[3])
        return expected in held.values()

    expected = {
        "w2vbert_clips_total": 3.0,
        "w2vbert_audio_seconds_total": 7.5,
        "w2vbert_encoder_seconds_total": 0.5,
    }
    wait_for(scraped)
    state.close()


def test_what_finds_no_room(resources: Resources) -> None:
    wait_for(lambda: ray.available_resources().get("CPU") == 2)  # jobs before this one ended
    assert shortage(resources) == (
        "the cluster has 2 CPUs (2 free) on 1 node; a task that reads or writes takes 0.25 CPUs, "
        "a featurizer takes 0.5 CPUs, a model actor takes 0.5 CPUs: "
        "there is room for each, so the run is waiting for long work or slow storage"
    )
    on_gpus = replace(resources, annotate=replace(resources.annotate, cpus=1, gpus=1))
    assert shortage(on_gpus) == (
        "the cluster has 2 CPUs (2 free) and 0 GPUs (0 free) on 1 node; a task that reads or writes takes "
        "0.25 CPUs, a featurizer takes 0.5 CPUs, a model actor takes 1 CPU and 1 GPU: "
        "there is no room now for a model actor until a node comes or another job ends"
    )


def test_work_is_reported_as_it_is_done() -> None:
    spent: list[tuple[str, float]] = []
    items = timed(iter("ab"), lambda what, amount: spent.append((what, amount)))
    assert next(items) == "a"
    assert [what for what, _ in spent] == ["seconds"]
    assert list(items) == ["b"]
    assert all(amount >= 0 for _, amount in spent)


def test_rows_are_counted_and_left_as_they_are() -> None:
    errors = [
        None,
        ClipError(Stage.DECODE, Code.EMPTY, "x"),
        None,
        ClipError(Stage.READ, Code.UNDELIVERED, "y"),
    ]
    rows = pa.table(
        {
            "error": pa.array([error and error.as_row() for error in errors], ERROR),
            "duration_s": [2.0, 7.0, None, None],
            "encoder_s": pa.array([0.5, 0.25, 1.0, None], pa.float32()),
        }
    )
    found: dict[str, float] = {}
    assert count_rows(rows, found.__setitem__) is rows
    assert found == {"clips": 3, "errors": 1, "audio_s": 2.0, "encoder_s": 1.5}
    found.clear()
    count_rows(rows.slice(0, 0).drop_columns("encoder_s"), found.__setitem__)
    assert found == {"clips": 0, "errors": 0, "audio_s": 0.0}
