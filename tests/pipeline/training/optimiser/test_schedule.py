"""The course of the learning rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.optimiser.schedule import SCHEDULES, Schedule


def test_tri_stage() -> None:
    rate = Schedule("tri_stage", 100, warmup=0.1, hold=0.4, final=0.01)
    assert [rate(0), rate(9)] == pytest.approx([1 / 11, 10 / 11])
    assert {rate(step) for step in range(10, 51)} == {1.0}
    assert rate(75) == pytest.approx(0.1)  # half-way of a fall by a hundred
    assert rate(100) == pytest.approx(0.01)


def test_cosine_and_linear_and_constant() -> None:
    assert Schedule("cosine", 100, warmup=0, hold=0, final=0.2)(50) == pytest.approx(0.6)
    assert Schedule("cosine", 100, warmup=0, hold=0, final=0.2)(25) == pytest.approx(0.2 + 0.8 * 0.853553)
    assert Schedule("linear", 100, warmup=0.2, hold=0.4, final=0.0)(60) == pytest.approx(0.5)
    assert Schedule("constant", 100, warmup=0.2)(99) == 1.0


@given(
    name=st.sampled_from(SCHEDULES),
    steps=st.integers(1, 300),
    warmup=st.floats(0, 0.5),
    hold=st.floats(0, 0.5),
    final=st.floats(0, 1),
)
def test_it_rises_and_then_falls(name: str, steps: int, warmup: float, hold: float, final: float) -> None:
    rate = Schedule(name, steps, warmup, hold, final)
    rates = [rate(step) for step in range(steps)]
    peak = rates.index(max(rates))
    assert all(0 < share <= 1 for share in rates[: peak + 1])
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert min(rates[peak:]) >= min(final, *rates[peak : peak + 1]) - 1e-9
