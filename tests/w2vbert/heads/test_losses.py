"""Losses clip by clip: they add up to the losses of the batch, and each is that of the clip alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from w2vbert.config import ProblemType
from w2vbert.heads.losses import IGNORE, AMSoftmaxLoss, clip_loss, ctc_loss, frame_loss, frame_losses
from w2vbert.heads.moments import segment_mean_std
from w2vbert.packing import Packed

PROBLEMS: tuple[ProblemType, ...] = (
    "regression",
    "single_label_classification",
    "multi_label_classification",
)
Lengths = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("problem", PROBLEMS)
def test_clip_losses_are_those_of_each_clip(problem: ProblemType) -> None:
    logits, labels = random(4, 3), (random(4, 3, seed=1) > 0).float()
    if problem == "single_label_classification":
        labels = torch.tensor([2, 0, 1, 1])
    losses = clip_loss(logits, labels, problem, reduction="none")
    alone = [clip_loss(logits[row : row + 1], labels[row : row + 1], problem) for row in range(4)]
    torch.testing.assert_close(losses, torch.stack(alone))
    torch.testing.assert_close(losses.mean(), clip_loss(logits, labels, problem))
    assert losses.unique().numel() == 4


def test_a_clip_without_a_label_has_no_loss() -> None:
    losses = clip_loss(
        random(3, 4), torch.tensor([1, IGNORE, 0]), "single_label_classification", reduction="none"
    )
    assert losses[1] == 0
    assert (losses[[0, 2]] > 0).all()


@given(lengths=Lengths, labels=st.integers(1, 4), seed=st.integers(0, 99), single=st.booleans())
def test_frame_losses_are_sums_over_each_clip(
    lengths: list[int], labels: int, seed: int, single: bool
) -> None:
    total = sum(lengths)
    logits = Packed(random(total, labels, seed=seed), tuple(lengths))
    targets = (random(total, labels, seed=seed + 100) > 0).long()
    ignored = random(total, seed=seed + 200) > 2
    targets[ignored] = IGNORE
    problem: ProblemType = "single_label_classification" if single else "multi_label_classification"
    sums, counts = frame_losses(logits, targets, problem)
    padded = logits.with_frames(targets).pad(IGNORE)
    torch.testing.assert_close(sums.sum() / max(int(counts.sum()), 1), frame_loss(logits, padded, problem))
    parts = zip(logits.split(), targets.split(lengths), ignored.split(lengths), strict=True)
    for row, (clip, target, gone) in enumerate(parts):
        clip, target = clip[~gone], target[~gone]
        if single:
            expected = F.cross_entropy(clip, target.argmax(dim=1), reduction="sum")
        else:
            expected = F.binary_cross_entropy_with_logits(clip, target.float(), reduction="sum")
        assert sums[row].item() == pytest.approx(expected.item(), rel=1e-5)
        assert counts[row] == len(clip) * (1 if single else labels)


def test_am_softmax_of_each_vector_and_with_another_margin() -> None:
    loss = AMSoftmaxLoss(4, 3, margin=0.4)
    with torch.no_grad():
        loss.weight.copy_(random(4, 3))
    vectors, labels = random(5, 4, seed=1), torch.tensor([0, 1, 2, 2, 0])
    losses = loss(vectors, labels, reduction="none")
    alone = [loss(vectors[row : row + 1], labels[row : row + 1]) for row in range(5)]
    torch.testing.assert_close(losses, torch.stack(alone))
    cosines = F.cosine_similarity(vectors[:, :, None], loss.weight[None], dim=1)
    for margin in (0.0, 0.2):
        expected = F.cross_entropy(30 * (cosines - margin * F.one_hot(labels, 3)), labels)
        torch.testing.assert_close(loss(vectors, labels, margin=margin), expected)
    torch.testing.assert_close(loss(vectors, labels, margin=0.4), loss(vectors, labels))


def test_cosines_are_float32_under_autocast() -> None:
    loss = AMSoftmaxLoss(16, 3)
    with torch.no_grad():
        loss.weight.copy_(random(16, 3))
    vectors, labels = random(5, 16, seed=1), torch.tensor([0, 1, 2, 2, 0])
    exact = loss(vectors, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(vectors, labels), exact)


def test_ctc_losses_by_torch() -> None:
    """Each clip alone, and "mean" as torch defines it: each by its length, then the mean."""
    logits = Packed(random(17, 5), (9, 8))
    labels = torch.tensor([[1, 2, 2], [3, IGNORE, IGNORE]])
    options: dict[str, Any] = {"blank": 0, "zero_infinity": True}
    losses = ctc_loss(logits, labels, reduction="none", **options)
    for row, (clip, target) in enumerate(zip(logits.split(), ([1, 2, 2], [3]), strict=True)):
        expected = F.ctc_loss(
            clip.log_softmax(-1), torch.tensor(target), (len(clip),), (len(target),), reduction="sum"
        )
        assert losses[row].item() == pytest.approx(expected.item(), rel=1e-5)
    mean = ctc_loss(logits, labels, reduction="mean", **options)
    torch.testing.assert_close((losses / torch.tensor([3, 1])).mean(), mean)


def test_a_feature_that_never_varies_has_no_slope() -> None:
    """As with torch.std: a deviation of zero, and a gradient of zero instead of NaN."""
    frames = torch.cat((torch.full((6, 1), 3.0), random(6, 1)), dim=1).requires_grad_()
    _, deviations = segment_mean_std(frames, [(0, 3), (3, 6)])
    deviations.sum().backward()
    given = frames.grad
    assert given is not None
    frames.grad = None
    torch.stack([frames[:3].std(dim=0), frames[3:].std(dim=0)]).sum().backward()
    assert deviations[:, 0].tolist() == [0.0, 0.0]
    torch.testing.assert_close(given, frames.grad)
