"""Span masks for SpecAugment and for pretraining.

Source: Park et al. 2019, "SpecAugment" (arXiv:1904.08779); Baevski et al. 2020, "wav2vec 2.0"
(arXiv:2006.11477), section 3.1 and appendix A, whose span sampling the published Wav2Vec2-BERT uses.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def span_mask(
    lengths: Sequence[int] | Tensor,
    mask_prob: float,
    mask_length: int,
    *,
    min_masks: int = 0,
    max_length: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw a mask of random spans for every row.

    A row of ``n`` positions gets ``floor(mask_prob * n / mask_length + u)`` spans, ``u`` uniform in
    [0, 1), at least ``min_masks``, at most the ``n // mask_length`` that fit side by side. Their starts are
    drawn uniformly without replacement from the ``n - mask_length + 1`` places where a whole span fits, so
    spans may overlap and never leave the row. A row shorter than one span gets none.

    The result for a row has the distribution that the published code gives for a batch of that row alone.
    There ``u`` and the bound on the number of spans are shared by the batch; here rows are independent.

    Args:
        lengths: valid positions of each row, ``(batch,)``.
        mask_prob: share of positions covered if no spans overlapped, in [0, 1].
        mask_length: positions per span, at least 1.
        min_masks: least number of spans per row, as far as they fit.
        max_length: width of the result; the longest row when omitted.
        generator: source of randomness; torch's default one when omitted. Draws are made on its device, so a
            CPU generator's seed gives the same masks wherever the model runs.

    Returns:
        bool ``(batch, max_length)`` on the generator's device (the CPU without one), True where masked;
        always False beyond a row's length.

    Raises:
        ValueError: ``mask_prob``, ``mask_length``, ``min_masks`` or ``max_length`` is out of range.
    """
    if not 0.0 <= mask_prob <= 1.0:
        raise ValueError(f"mask_prob must lie in [0, 1], got {mask_prob}")
    if mask_length < 1:
        raise ValueError(f"mask_length must be at least 1, got {mask_length}")
    if min_masks < 0:
        raise ValueError(f"min_masks must not be negative, got {min_masks}")
    device = torch.device("cpu") if generator is None else generator.device
    lengths = torch.as_tensor(lengths, dtype=torch.long, device=device)
    longest = int(lengths.max()) if lengths.numel() else 0
    if max_length is None:
        max_length = longest
    elif longest > max_length:
        raise ValueError(f"max_length is {max_length}, but the longest row has {longest} positions")

    rounding = torch.rand(len(lengths), generator=generator, device=device, dtype=torch.float64)
    spans = (mask_prob * lengths / mask_length + rounding).floor().long()
    spans = spans.clamp(min=min_masks).minimum(lengths // mask_length)

    # The positions of the `spans` smallest of independent scores are a uniform draw without replacement.
    scores = torch.rand(len(lengths), max_length, generator=generator, device=device)
    positions = torch.arange(max_length, device=device)
    fits = positions <= (lengths - mask_length)[:, None]
    ranks = scores.masked_fill(~fits, torch.inf).argsort(dim=1).argsort(dim=1)
    starts = ranks < spans[:, None]

    # A position is masked when a span started within the last `mask_length` positions.
    started = starts.cumsum(dim=1)
    ended = torch.nn.functional.pad(started, (mask_length, 0))[:, :max_length]
    return started > ended
