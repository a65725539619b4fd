"""Span masks: what holds for every draw."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from w2vbert.encoder.masking import span_mask


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=5),
    mask_prob=st.floats(0, 1),
    mask_length=st.integers(1, 20),
    min_masks=st.integers(0, 4),
    seed=st.integers(0, 2**32),
)
def test_every_draw(
    lengths: list[int], mask_prob: float, mask_length: int, min_masks: int, seed: int
) -> None:
    mask = span_mask(lengths, mask_prob, mask_length, min_masks=min_masks, generator=seeded(seed))
    assert mask.shape == (len(lengths), max(lengths))
    for row, length in zip(mask.tolist(), lengths, strict=True):
        assert not any(row[length:]), "a span left its row"
        runs = "".join("x" if masked else " " for masked in row).split()
        assert all(len(run) >= mask_length for run in runs), "a span was cut"
        fit = length // mask_length
        least = min(max(int(mask_prob * length / mask_length), min_masks), fit)
        most = min(max(int(mask_prob * length / mask_length) + 1, min_masks), fit)
        covered = sum(row)
        assert covered <= most * mask_length
        # Spans may overlap, but their starts differ: n of them cover at least mask_length + n - 1 positions.
        assert covered >= (mask_length + least - 1 if least else 0)


def test_a_seed_gives_the_same_masks() -> None:
    first, again, other = (span_mask([200, 90], 0.5, 5, generator=seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_a_generator_torch_seeds_it() -> None:
    torch.manual_seed(5)
    first = span_mask([300], 0.3, 4)
    torch.manual_seed(5)
    assert torch.equal(first, span_mask([300], 0.3, 4))


def test_counts_when_spans_cannot_overlap() -> None:
    """Spans of one frame: the number masked is the number of spans, an exact 30 of 100."""
    mask = span_mask(torch.tensor([100, 10]), 0.3, 1, generator=seeded(0), max_length=120)
    assert mask.shape == (2, 120)
    assert mask.sum(1).tolist() == [30, 3]


def test_rounding_is_unbiased() -> None:
    """0.25 * 10 / 1 = 2.5 spans: two or three, each half of the time."""
    counts = span_mask([10] * 4000, 0.25, 1, generator=seeded(1)).sum(1)
    assert set(counts.tolist()) == {2, 3}
    assert counts.double().mean().item() == pytest.approx(2.5, abs=0.04)


def test_short_rows_get_what_fits() -> None:
    mask = span_mask([0, 9, 10, 25], 0.05, 10, min_masks=2, generator=seeded(2))
    covered = mask.sum(1).tolist()
    assert covered[:3] == [0, 0, 10], "no whole span fits below 10 frames, and exactly one in 10"
    assert 11 <= covered[3] <= 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask_prob": 1.5, "mask_length": 2}, "mask_prob"),
        ({"mask_prob": 0.5, "mask_length": 0}, "mask_length"),
        ({"mask_prob": 0.5, "mask_length": 2, "min_masks": -1}, "min_masks"),
        ({"mask_prob": 0.5, "mask_length": 2, "max_length": 7}, "max_length is 7, but the longest row has 8"),
    ],
)
def test_impossible_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        span_mask([8], **arguments)  # type: ignore[arg-type]
