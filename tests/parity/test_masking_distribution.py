"""Span masks are drawn from the published distribution. Seeds are fixed: every run has the same outcome."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import _compute_mask_indices

from w2vbert.encoder.masking import span_mask

DRAWS = 4000
# (length, mask_prob, mask_length, min_masks): rounding both ways, overlap, the minimum, a bound on the spans.
CASES = [
    (50, 0.05, 10, 2),
    (40, 0.33, 4, 0),
    (37, 0.5, 5, 1),
    (30, 0.9, 7, 0),
    (12, 0.05, 10, 2),
    (64, 0.02, 3, 0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("length", "mask_prob", "mask_length", "min_masks"), CASES)
def test_same_distribution_as_the_peer(
    length: int, mask_prob: float, mask_length: int, min_masks: int
) -> None:
    np.random.seed(0)
    peer = np.concatenate(
        [
            _compute_mask_indices((1, length), mask_prob, mask_length, min_masks=min_masks)
            for _ in range(DRAWS)
        ]
    )
    generator = torch.Generator().manual_seed(0)
    ours = span_mask(
        [length] * DRAWS, mask_prob, mask_length, min_masks=min_masks, generator=generator
    ).numpy()

    # How often each position is masked, and how often each pair of neighbours begins a masked run.
    for statistic in (lambda mask: mask, lambda mask: mask[:, 1:] & ~mask[:, :-1]):
        theirs, own = statistic(peer).mean(0), statistic(ours).mean(0)
        pooled = (theirs + own) / 2
        error = np.sqrt(2 * pooled * (1 - pooled) / DRAWS) + 1e-9
        assert (np.abs(theirs - own) / error).max() < 4.5

    # How many positions of a row are masked: the two-sample Kolmogorov-Smirnov statistic, critical at 1e-4.
    counts = np.arange(length + 1)
    cumulated = [(mask.sum(1)[:, None] <= counts).mean(0) for mask in (peer, ours)]
    assert np.abs(cumulated[0] - cumulated[1]).max() < 2.23 * np.sqrt(2 / DRAWS)


def test_the_comparison_can_fail() -> None:
    """One span more in a tenth of the rows is seen by the same statistic."""
    generator = torch.Generator().manual_seed(0)
    right, wrong = (
        span_mask([40] * DRAWS, prob, 4, generator=generator).numpy().sum(1) for prob in (0.33, 0.34)
    )
    counts = np.arange(41)
    cumulated = [(sums[:, None] <= counts).mean(0) for sums in (right, wrong)]
    assert np.abs(cumulated[0] - cumulated[1]).max() > 2.23 * np.sqrt(2 / DRAWS)
