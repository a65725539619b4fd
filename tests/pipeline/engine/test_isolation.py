"""What is kept of the blocks in hand, and that a run does without."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pyarrow as pa
import pytest
import ray

from pipeline.engine.isolation import Blocks
from pipeline.engine.run_state import Counts, RunState
from pipeline.errors import Code, Stage
from pipeline.schema import read_schema

CLIPS = pa.Table.from_pylist(
    [{"clip_id": f"c{number}"} for number in range(3)], schema=read_schema(pa.schema([]))
)


class Deaths:
    """Takes a block as an actor does that dies each time at the first of these rows, but those set aside."""

    def __init__(self, *killers: int) -> None:
        self.blocks, self.killers, self.left = Blocks(), killers, 20

    def run(self) -> list[int]:
        """The rows set aside, once the block is through."""
        again, aside = self.blocks.take("b")
        live = [row for row in range(3) if row not in aside]
        for row in live if again else []:
            self.blocks.start("b", row)
            if row in self.killers:
                return self.die()
        if not again and self.killers:
            return self.die()
        self.blocks.done("b")
        return sorted(aside)

    def die(self) -> list[int]:
        self.left -= 1
        assert self.left, "it never ends"
        return self.run()


@pytest.mark.parametrize("killers", [(), (0,), (2,), (0, 1), (0, 1, 2)])
def test_each_killer_kills_twice(killers: tuple[int, ...]) -> None:
    deaths = Deaths(*killers)
    assert deaths.run() == sorted(killers)
    assert deaths.left == 20 - 2 * len(killers)
    assert deaths.blocks._held == {}


def test_one_death_beside_a_killer_is_forgiven() -> None:
    blocks = Blocks()
    blocks.take("b")  # died
    for row in (0, 0, 1):
        assert blocks.take("b")[0]
        blocks.start("b", row)
    assert blocks.take("b")[1].keys() == {0}
    blocks.start("b", 1)
    assert blocks.take("b")[1].keys() == {0, 1}


def test_what_a_process_said_of_its_end() -> None:
    blocks = Blocks()
    blocks.take("b")
    blocks.say("b", "the first death")
    blocks.take("b")
    blocks.start("b", 1)
    blocks.say("b", "a lost device")
    assert blocks.take("b") == (True, {1: "a lost device"})
    blocks.done("b")
    assert blocks.take("b") == (False, {})


@pytest.mark.usefixtures("local_ray")
def test_a_run_does_without_what_counts_and_remembers() -> None:
    state = RunState()
    isolation = state.isolation("featurize", Stage.DECODE, Code.UNDECODABLE)

    key = isolation.key(*CLIPS["clip_id"].to_pylist())

    def take() -> tuple[list[Any], bool]:
        with isolation.block(CLIPS) as (block, starting):
            if starting is not None:
                starting(1)
            return block["error"].to_pylist(), starting is not None

    assert take() == ([None] * 3, False)
    ray.get(isolation.blocks.take.remote(key))  # and died
    assert take() == ([None] * 3, True)
    for _ in range(2):
        ray.get(isolation.blocks.take.remote(key))
        ray.get(isolation.blocks.start.remote(key, 1))
    errors, again = take()
    assert again
    assert [error and (error["stage"], error["code"]) for error in errors] == [
        None,
        ("decode", "undecodable"),
        None,
    ]

    report = state.report("annotate")
    report("passes", 3)
    assert state.sums() == {("annotate", "passes"): 3}
    ray.kill(state._actor, no_restart=False)
    while state.sums() is not None:  # the one that ends still answers; of the next some are missing
        pass
    assert take() == ([None] * 3, False)
    report("passes", 1)
    assert state.sums() is None
    ray.kill(state._actor)
    report("passes", 1)
    assert take() == ([None] * 3, False)
    assert state.close() == Counts({}, None, None)


@pytest.mark.usefixtures("local_ray")
def test_steps_are_told_after_a_death_and_the_one_that_killed_three_times_is_not_taken() -> None:
    isolation = RunState().isolation("read", Stage.READ, Code.BROKEN_SHARD)

    def work(dies_at: int | None) -> list[str | None]:
        said = []
        with suppress(InterruptedError), isolation.steps("a", "b") as step:
            for number in range(3):
                said.append(step())
                if number == dies_at:
                    raise InterruptedError
        return said

    for _ in range(3):
        assert work(1) == [None, None]
    first, died, third = work(None)
    assert (first, third) == (None, None)
    assert str(died).startswith("the process that read it died three times at the same place: it crashed")
    assert work(None) == [None, None, None]
