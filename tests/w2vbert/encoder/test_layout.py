"""Index tensors against what they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from w2vbert.encoder import layout as layout_module
from w2vbert.encoder.layout import Layout

CPU = torch.device("cpu")
LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=7)


@given(lengths=LENGTHS)
def test_rows_and_positions(lengths: list[int]) -> None:
    layout = Layout(lengths, CPU)
    expected = [(row, position) for row, length in enumerate(lengths) for position in range(length)]
    assert list(zip(layout.rows.tolist(), layout.positions.tolist(), strict=True)) == expected


@given(lengths=LENGTHS, kernel=st.integers(1, 5), stride=st.integers(1, 4), padding=st.integers(0, 2))
def test_windows_are_what_a_convolution_reads(
    lengths: list[int], kernel: int, stride: int, padding: int
) -> None:
    sizes = [(length + 2 * padding - kernel) // stride + 1 for length in lengths]
    if min(sizes) < 1:
        return
    frames = torch.arange(1.0, sum(lengths) + 1)
    windows = Layout(lengths, CPU).windows(sizes, kernel=kernel, stride=stride, padding=padding)
    read = torch.cat((frames, torch.zeros(1)))[windows]
    expected = [
        F.pad(sequence, (padding, padding)).unfold(0, kernel, stride) for sequence in frames.split(lengths)
    ]
    assert torch.equal(read, torch.cat(expected))


@pytest.mark.parametrize("similar", [0.0, 0.5, 1.0])
@given(lengths=LENGTHS)
def test_grouping_loses_nothing(similar: float, lengths: list[int]) -> None:
    layout = Layout(lengths, CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_module, "_SIMILAR_ON_CPU", similar)
        groups = layout.groups
    assert sorted(row for group in groups for row in group.rows) == list(range(len(lengths)))
    for group in groups:
        assert min(lengths[row] for row in group.rows) >= similar * group.length
        if group.mask is None:
            assert {lengths[row] for row in group.rows} == {group.keys}
        else:
            assert group.mask.sum((1, 2, 3)).tolist() == [lengths[row] for row in group.rows]
    frames = torch.arange(1.0, 2 * sum(lengths) + 1).view(-1, 2)
    heads = [
        group.heads(part, num_heads=2) for group, part in zip(groups, layout.grouped(frames), strict=True)
    ]
    assert [tuple(h.shape) for h in heads] == [(len(g.rows), 2, g.length, 1) for g in groups]
    assert torch.equal(layout.ungroup([h.transpose(1, 2).flatten(2).flatten(0, 1) for h in heads]), frames)


def test_frames_that_are_not_valid() -> None:
    layout = Layout((3, 3), CPU, num_valid=(3, 1))
    frames = torch.arange(1.0, 7.0).unsqueeze(1)
    assert layout.zero_invalid(frames).flatten().tolist() == [1, 2, 3, 4, 0, 0]
    assert layout.invalid is not None
    assert layout.invalid.flatten().tolist() == [False] * 4 + [True] * 2
    assert Layout((3, 1), CPU).invalid is None


@pytest.mark.parametrize(
    ("num_valid", "message"),
    [((3,), "of 1 sequences where there are 2"), ((3, 0), "sequence 1"), ((4, 2), "sequence 0 has 3 frames")],
)
def test_impossible_numbers_of_valid_frames(num_valid: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layout((3, 2), CPU, num_valid=num_valid)


def test_blocks_of_kernels() -> None:
    """Start of the sequence, start of the block in it, frames, valid ones; the longest sequence first."""
    layout = Layout([3, 9, 1], CPU, num_valid=[3, 8, 1])
    assert layout.blocks(4).tolist() == [
        [3, 0, 9, 8],
        [3, 4, 9, 8],
        [3, 8, 9, 8],
        [0, 0, 3, 3],
        [12, 0, 1, 1],
    ]
    assert layout.blocks(16).tolist() == [[3, 0, 9, 8], [0, 0, 3, 3], [12, 0, 1, 1]]
