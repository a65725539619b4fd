"""Runs of True, and rounding up."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from w2vbert.arrays import round_up, runs


@given(st.lists(st.booleans(), max_size=30))
def test_runs(flags: list[bool]) -> None:
    wanted, at = [], 0
    for flag, run in itertools.groupby(flags):
        stop = at + len(list(run))
        if flag:
            wanted.append((at, stop))
        at = stop
    starts, stops = runs(np.array(flags, bool))
    assert list(zip(starts.tolist(), stops.tolist(), strict=True)) == wanted


def test_round_up() -> None:
    assert [round_up(number, 4) for number in (0, 1, 4, 5)] == [0, 4, 4, 8]
    assert round_up(5, None) == 5
