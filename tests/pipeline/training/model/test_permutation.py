"""The best order of speakers against all orders."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.training.model.permutation import in_best_order
from w2vbert.packing import Packed

Clips = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 4)), min_size=1, max_size=4)


def cost(logits: Tensor, targets: Tensor) -> float:
    return F.binary_cross_entropy_with_logits(logits.double(), targets.double(), reduction="sum").item()


@given(clips=Clips, seed=st.integers(0, 2**16), scale=st.sampled_from([0.1, 3.0, 30.0]))
def test_no_order_costs_less(clips: list[tuple[int, int]], seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = tuple(length for length, _ in clips)
    logits = Packed(scale * torch.randn(sum(lengths), 4, generator=generator), lengths)
    speakers = [torch.randint(2, shape, generator=generator).float() for shape in clips]
    found = in_best_order(logits, speakers)
    parts = zip(logits.split(), found.split_with_sizes(lengths), speakers, strict=True)
    for clip, ordered, active in parts:
        padded = F.pad(active, (0, 4 - active.shape[1]))
        costs = [cost(clip, padded[:, list(order)]) for order in permutations(range(4))]
        assert cost(clip, ordered) == pytest.approx(min(costs), rel=1e-5, abs=1e-6)
        assert sorted(map(tuple, ordered.T.tolist())) == sorted(map(tuple, padded.T.tolist()))


def test_the_numbers_of_speakers_mean_nothing() -> None:
    logits = Packed(torch.tensor([[5.0, -5.0, -5.0], [-5.0, 5.0, -5.0]]), (2,))
    speakers = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    expected = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert in_best_order(logits, [speakers]).tolist() == expected
    assert in_best_order(logits, [speakers.flip(1)]).tolist() == expected


def test_logits_that_are_not_finite_are_left_to_the_caller() -> None:
    logits = Packed(torch.tensor([[float("nan"), 1.0], [0.0, float("inf")]]), (2,))
    assert in_best_order(logits, [torch.ones(2, 1)]).sum() == 2


@pytest.mark.parametrize("shape", [(5, 3), (4, 2), (5,)])
def test_speakers_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"clip 1 must have shape \(5 frames, at most 2 speakers\)"):
        in_best_order(Packed(torch.zeros(8, 2), (3, 5)), [torch.ones(3, 1), torch.ones(shape)])
