"""Packing and padding are inverse, and only masks that mean something pass."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from w2vbert.packing import MaskError, Packed

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def numbered(lengths: list[int], width: int = 3) -> Packed:
    total = sum(lengths)
    return Packed(torch.arange(1.0, 1 + total * width).view(total, width), tuple(lengths))


@given(lengths=LENGTHS, extra=st.integers(0, 3))
def test_pad_and_pack_are_inverse(lengths: list[int], extra: int) -> None:
    packed = numbered(lengths)
    width = max(lengths) + extra
    padded, mask = packed.pad(-1.0, length=width), packed.mask(length=width)
    assert padded.shape == (len(lengths), width, 3)
    assert (padded[~mask] == -1.0).all()
    for row, sequence in enumerate(packed.split()):
        assert torch.equal(padded[row, : lengths[row]], sequence)
    again = Packed.from_padded(padded, mask)
    assert again.lengths == packed.lengths
    assert torch.equal(again.frames, packed.frames)


@given(lengths=LENGTHS)
def test_sequences(lengths: list[int]) -> None:
    sequences = [torch.full((length, 2), float(row)) for row, length in enumerate(lengths)]
    packed = Packed.from_sequences(sequences)
    assert all(torch.equal(a, b) for a, b in zip(packed.split(), sequences, strict=True))
    assert packed.offsets == (*(sum(lengths[:row]) for row in range(len(lengths))), sum(lengths))


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.int64, torch.int32, torch.uint8, torch.float32, torch.half]
)
def test_any_type_of_mask(dtype: torch.dtype) -> None:
    padded = torch.arange(12.0).view(2, 3, 2)
    packed = Packed.from_padded(padded, torch.tensor([[1, 1, 1], [1, 0, 0]]).to(dtype))
    assert packed.lengths == (3, 1)
    assert packed.frames.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize(
    ("mask", "complaint"),
    [
        ([[1, 1, 1], [0, 0, 0]], "row 1 marks no frame"),
        ([[1, 1], [1, 0]], "must have shape"),
        ([1, 1, 0], "must have shape"),
    ],
)
def test_masks_that_mean_nothing(mask: list[list[int]], complaint: str) -> None:
    with pytest.raises(MaskError, match=complaint):
        Packed.from_padded(torch.zeros(2, 3, 4), torch.tensor(mask))


@given(mask=st.lists(st.lists(st.booleans(), min_size=5, max_size=5).filter(any), min_size=1, max_size=4))
def test_frames_go_back_to_the_places_that_the_mask_marks(mask: list[list[bool]]) -> None:
    marked = torch.tensor(mask)
    padded = torch.arange(1.0, 1 + marked.numel()).view(*marked.shape, 1)
    packed = Packed.from_padded(padded, marked)
    assert packed.lengths == tuple(sum(row) for row in mask)
    assert torch.equal(packed.with_frames(2 * packed.frames).pad(length=5), 2 * padded * marked[..., None])
    assert torch.equal(packed.mask(length=5), marked)


@given(mask=st.lists(st.lists(st.booleans(), min_size=5, max_size=5).filter(any), min_size=1, max_size=4))
def test_gradients_pass_through_what_is_shown(mask: list[list[bool]]) -> None:
    marked = torch.tensor(mask)
    packed = Packed.from_padded(torch.ones(*marked.shape, 1, requires_grad=True), marked).through_rows()
    shown = packed.pad(length=5)
    shown.retain_grad()
    (packed.frames * torch.arange(1.0, 1 + len(packed.frames))[:, None]).sum().backward()
    assert shown.grad is not None
    assert shown.grad[marked].flatten().tolist() == list(range(1, 1 + len(packed.frames)))
    assert shown.grad[~marked].abs().sum() == 0


def test_lengths_must_fit() -> None:
    with pytest.raises(ValueError, match="add up to 5, but there are 4"):
        Packed(torch.zeros(4, 2), (2, 3))
    with pytest.raises(ValueError, match="at least one frame"):
        Packed(torch.zeros(2, 2), (2, 0))
    with pytest.raises(ValueError, match="cannot hold a sequence of 3"):
        numbered([3, 1]).pad(length=2)


def test_gradients_pass_through_padding() -> None:
    frames = torch.ones(5, 2, requires_grad=True)
    (Packed(frames, (4, 1)).pad() * torch.arange(16.0).view(2, 4, 2)).sum().backward()
    assert frames.grad is not None
    assert frames.grad.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
