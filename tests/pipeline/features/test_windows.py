"""Windows over recordings: they cover everything, share enough, and are as few and as equal as can be."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.features.windows import Window, WindowPlan


@st.composite
def plans(draw: st.DrawFn) -> WindowPlan:
    align = draw(st.sampled_from([1, 2, 3, 4, 8, 32]))
    frames = draw(st.integers(50, 4000))
    plan = WindowPlan(frames, draw(st.integers(0, frames // 2)), align)
    assume(plan.advance > 0)  # a job refuses others
    return plan


@given(plan=plans(), begin=st.integers(0, 1000), length=st.integers(1, 100_000))
def test_cut(plan: WindowPlan, begin: int, length: int) -> None:
    start, stop = begin * plan.align, begin * plan.align + length
    windows = plan.cut(start, stop)
    assert (windows[0][0], windows[-1][1]) == (start, stop)
    assert all(first % plan.align == 0 for first, _ in windows)
    assert all(0 < last - first <= plan.frames for first, last in windows)
    for (_, last), (following, _) in pairwise(windows):
        assert plan.overlap <= last - following < plan.overlap + plan.align
    assert all(first < following for (first, _), (following, _) in pairwise(windows))


@given(plan=plans(), length=st.integers(1, 100_000))
def test_none_can_be_left_out(plan: WindowPlan, length: int) -> None:
    windows = plan.cut(0, length)
    longest, overlap = plan.frames // plan.align, -(-plan.overlap // plan.align)  # in units of `align`
    if len(windows) > 1:
        assert length > ((len(windows) - 2) * (longest - overlap) + longest) * plan.align


@given(plan=plans(), length=st.integers(1, 100_000))
def test_of_nearly_equal_length(plan: WindowPlan, length: int) -> None:
    lengths = [last - first for first, last in plan.cut(0, length)]
    assert max(lengths) - min(lengths) < 2 * plan.align


def test_a_long_recording() -> None:
    assert WindowPlan(3000, 200).cut(0, 3000) == [(0, 3000)]
    assert WindowPlan(3000, 200).cut(0, 3001) == [(0, 1601), (1401, 3001)]
    assert WindowPlan(3000, 200, align=8).cut(8, 6008) == [(8, 2144), (1944, 4080), (3880, 6008)]


@given(
    plan=plans(),
    lengths=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 10_000)), min_size=1, max_size=5),
)
def test_windows_over_segments_find_their_features(plan: WindowPlan, lengths: list[tuple[int, int]]) -> None:
    segments = []
    end = 0
    for gap, length in lengths:
        start = -(-(end + gap) // plan.align) * plan.align
        end = start + length
        segments.append((start, end))
    rows = [frame for start, stop in segments for frame in range(start, stop)]
    windows = plan.over(segments)
    for window in windows:
        assert rows[window.at : window.at + window.frames] == list(range(window.start, window.stop))
    assert {frame for window in windows for frame in range(window.start, window.stop)} == set(rows)


def test_nothing_kept_no_windows() -> None:
    assert WindowPlan(3000, 200).over([]) == []
    assert WindowPlan(3000, 200).over([(100, 150), (300, 310)]) == [Window(100, 50, 0), Window(300, 10, 50)]
