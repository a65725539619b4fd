"""The loss of each task, against what torch and the heads say of each clip alone."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.training.model.losses import TaskLoss
from pipeline.training.model.multitask import MultiTask
from pipeline.training.model.objectives import Choices, _part
from tests.pipeline.training.model.tiny import HEADS, LENGTHS, STILL, batch, targets, tiny
from w2vbert.packing import Packed


def loss_of(learner: MultiTask, task: str, made: Any, **options: Any) -> TaskLoss:
    return learner(made, **options)[task]


def alone(learner: MultiTask, task: str, made: Any) -> list[Any]:
    """What the published forward of a task says of each clip by itself, in evaluation mode."""
    model = learner.results[task]
    with torch.no_grad():
        return [model(clip[None]) for clip in made.features.split()]


@pytest.mark.parametrize("task", HEADS)
def test_losses_of_a_pack_are_those_of_its_clips(task: str) -> None:
    """Whatever else is in the pack; the total is their sum by what counts, and has a gradient."""
    learner, made = tiny(**STILL).eval(), batch()
    whole = loss_of(learner, task, made)
    counts, totals = 0.0, 0.0
    for row, clip in enumerate(made.features.split()):
        one = batch((len(clip),), {task: [made.targets[task][row]]})
        one = type(one)(**{**vars(one), "features": Packed.from_sequences([clip])})
        single = loss_of(learner, task, one)
        assert whole.clips[row].item() == pytest.approx(single.clips[0].item(), rel=1e-4)
        assert single.total.item() == pytest.approx(single.clips[0].item() * single.count, rel=1e-5)
        counts, totals = counts + single.count, totals + single.total.item()
    assert whole.count == counts
    assert whole.total.item() == pytest.approx(totals, rel=1e-4)
    assert whole.total.requires_grad
    assert not whole.clips.requires_grad


def test_ctc_mean_by_torch() -> None:
    learner, made = tiny(["transcribe"], **STILL).eval(), batch()
    loss = loss_of(learner, "transcribe", made)
    expected = []
    for output, target in zip(alone(learner, "transcribe", made), made.targets["transcribe"], strict=True):
        assert target is not None
        log_probs = output.logits[0].log_softmax(dim=-1)
        length = (len(target),)
        expected.append(F.ctc_loss(log_probs, target, (len(log_probs),), length, reduction="mean").item())
    assert loss.clips.tolist() == pytest.approx(expected, rel=1e-4)
    assert (loss.count, loss.total.item()) == (3, pytest.approx(sum(expected), rel=1e-4))


def test_a_text_too_long_for_its_clip_is_counted_and_teaches_nothing() -> None:
    """Four frames: enough for "abcd", not for "abbc", whose two b have a blank between them."""
    texts = [torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 2, 3]), torch.tensor([1, 2])]
    learner = tiny(["transcribe"], **STILL)
    loss = loss_of(learner, "transcribe", batch((4, 4, 4), {"transcribe": texts}))
    assert (loss.count, loss.facts["zeroed"]) == (3, 1)
    assert loss.clips.isinf().tolist() == [False, True, False]
    assert loss.total.item() == pytest.approx(loss.clips[[0, 2]].sum().item(), rel=1e-6)
    loss.total.backward()
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_share_of_blanks() -> None:
    learner, made = tiny(["transcribe"], **STILL).eval(), batch((10, 20))
    head = learner.results["transcribe"].lm_head
    with torch.no_grad():
        head.weight.zero_()
    for blank, expected in ((1.0, 2.0), (-1.0, 0.0)):
        with torch.no_grad():
            head.bias[0] = blank
        loss = loss_of(learner, "transcribe", made)
        assert loss.facts["blank"] == expected


def test_cross_entropy_of_labels() -> None:
    learner, made = tiny(["classify"], **STILL).eval(), batch()
    loss = loss_of(learner, "classify", made)
    logits = torch.cat([output.logits for output in alone(learner, "classify", made)])
    labels = torch.stack(list(made.targets["classify"]))  # type: ignore[arg-type]
    expected = F.cross_entropy(logits, labels, reduction="none").tolist()
    assert loss.clips.tolist() == pytest.approx(expected, rel=1e-4)
    assert loss.facts["correct"] == (logits.argmax(1) == labels).sum().item()


def test_diarization_costs_what_the_best_order_costs() -> None:
    learner, made = tiny(["diarize"], **STILL).eval(), batch()
    loss = loss_of(learner, "diarize", made)
    best = []
    for output, active in zip(alone(learner, "diarize", made), made.targets["diarize"], strict=True):
        assert active is not None
        padded = F.pad(active, (0, 3 - active.shape[1]))
        orders = [padded[:, list(order)] for order in permutations(range(3))]
        best.append(min(F.binary_cross_entropy_with_logits(output.logits[0], o).item() for o in orders))
    assert loss.clips.tolist() == pytest.approx(best, rel=1e-4)
    assert loss.count == sum(LENGTHS) * 3


def test_am_softmax_of_x_vectors() -> None:
    learner, made = tiny(["embed"], **STILL).eval(), batch()
    model = learner.results["embed"]
    logits = torch.cat([output.logits for output in alone(learner, "embed", made)])
    labels = torch.stack(list(made.targets["embed"]))  # type: ignore[arg-type]
    for margin in (None, 0.0, 0.2):
        loss = loss_of(learner, "embed", made, margin=margin)
        expected = model.objective(logits, labels, margin=margin, reduction="none").tolist()
        assert loss.clips.tolist() == pytest.approx(expected, rel=1e-3)


def test_clips_too_short_for_an_x_vector_do_not_count() -> None:
    learner = tiny(["embed"], **STILL).eval()
    shortest = learner.results["embed"].minimum_frames
    loss = loss_of(learner, "embed", batch((shortest, shortest - 1, 20)))
    assert loss.count == 2
    assert loss.clips.isnan().tolist() == [False, True, False]
    assert loss.total.item() == pytest.approx(loss.clips[[0, 2]].sum().item())


def crops(learner: MultiTask, seed: int) -> Tensor:
    return loss_of(learner, "embed", batch((40, 60, 12), targets((40, 60, 12)), seed=seed)).clips


def test_crops_are_drawn_in_training_alone_and_from_the_batch() -> None:
    learner = tiny(["embed"], **STILL)
    whole = crops(learner, 1)
    learner.crop_frames = (15, 20)
    cropped = crops(learner, 1)
    assert torch.equal(crops(learner, 1), cropped)
    assert (cropped[:2] != whole[:2]).all()
    assert cropped[2] == whole[2], "a clip of 12 frames has no part of 15"
    learner.eval()
    torch.testing.assert_close(crops(learner, 1), whole)
    learner.train().crop_frames = (1, 1)
    assert crops(learner, 1).isfinite().all(), "no part is too short for a vector"


def test_crops_lie_anywhere() -> None:
    """Parts of 15 of 17 frames start at 0, 1 and 2, equally often."""
    choices = Choices(torch.Generator().manual_seed(0), crop_frames=(15, 15))
    starts = [_part(17, 9, choices) for _ in range(600)]
    assert {length for _, length in starts} == {15}
    counts = [sum(start == at for start, _ in starts) for at in range(3)]
    assert sum(counts) == 600
    assert min(counts) > 150
