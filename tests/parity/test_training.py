"""Training against transformers on the same weights: losses, gradients, ten steps of AdamW.

The peer hears each clip alone: in a batch it would leak padding into adapters, learn from padded frames and
average x-vectors over it (see `test_peer_faults.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import permutations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from pipeline.training.batches.batch import Batch
from pipeline.training.model.multitask import MultiTask
from tests.parity.configs import peer_config, randomise
from tests.pipeline.training.model.tiny import HEADS, STILL, batch, targets, tiny
from w2vbert.heads.losses import frame_loss

LENGTHS = (46, 30, 60)
CASES = [(task, positions) for task in HEADS for positions in ("relative_key", "relative", "rotary")]


def masks() -> Tensor:
    chosen = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.bool)
    chosen[0, 5:12] = True
    chosen[1, 20:] = True
    chosen[2, :4] = True
    return chosen


def both(task: str, **fields: Any) -> tuple[MultiTask, Any]:
    """Ours with one task, and the peer's class of the same name and weights."""
    learner = tiny([task], **{**STILL, "mask_time_prob": 0.1, **fields})
    model = learner.results[task]
    randomise(model, 1)
    peer = getattr(transformers, type(model).__name__)(peer_config(model.config))
    peer.load_state_dict(model.state_dict(), strict=True)
    return learner, peer.train()


def our_loss(learner: MultiTask, task: str, made: Batch) -> Tensor:
    loss = learner(made, mask_time_indices=masks())[task]
    return loss.total / loss.count


def hear(peer: Any, made: Batch, row: int, **labels: Tensor) -> Any:
    """What the peer says of a clip, with our masks: its task classes do not pass them on."""
    encoder = peer.wav2vec2_bert
    chosen = masks()[row : row + 1, : LENGTHS[row]]
    encoder.forward = partial(type(encoder).forward, encoder, mask_time_indices=chosen)
    return peer(made.features.split()[row][None], **labels)


def peer_loss(peer: Any, task: str, made: Batch) -> Tensor:
    losses = []
    for row, target in enumerate(made.targets[task]):
        assert target is not None
        if task == "diarize":
            logits = hear(peer, made, row).logits[0]
            padded = F.pad(target, (0, logits.shape[1] - target.shape[1]))
            costs = [
                F.binary_cross_entropy_with_logits(logits, padded[:, list(order)], reduction="sum")
                for order in permutations(range(logits.shape[1]))
            ]
            losses.append(torch.stack(costs).min() * len(LENGTHS) / (sum(LENGTHS) * logits.shape[1]))
        else:
            losses.append(hear(peer, made, row, labels=target[None]).loss)
    return torch.stack(losses).mean()


def assert_gradients_are_the_same(ours: Mapping[str, Tensor | None], peer: Any) -> None:
    """Each within 1e-4 of its norm. What vanishes by symmetry (a key's bias under softmax) is noise there."""
    theirs = {name: parameter.grad for name, parameter in peer.named_parameters()}
    assert ours.keys() == theirs.keys()
    norms = [gradient.norm() for gradient in theirs.values() if gradient is not None]
    floor = 1e-3 * torch.stack(norms).max().item()
    for name, gradient in ours.items():
        expected = theirs[name]
        assert gradient is not None, name
        if expected is None:
            assert not gradient.any(), name
            continue
        error = (gradient - expected).norm().item()
        assert error < 1e-4 * max(expected.norm().item(), floor), name


def gradients(learner: MultiTask, task: str) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in learner.results[task].named_parameters()}


@pytest.mark.parametrize(("task", "positions"), CASES)
def test_loss_and_gradients(task: str, positions: str) -> None:
    learner, peer = both(task, position_embeddings_type=positions)
    made = batch(LENGTHS, targets(LENGTHS, seed=2))
    mine, theirs = our_loss(learner, task, made), peer_loss(peer, task, made)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=0)
    mine.backward()
    theirs.backward()
    assert_gradients_are_the_same(gradients(learner, task), peer)
    assert learner.encoder.masked_spec_embed.grad.any()


@pytest.mark.parametrize(("task", "fields"), [
    ("transcribe", {"add_adapter": True}),
    ("classify", {"use_weighted_layer_sum": True}),
    ("diarize", {"use_weighted_layer_sum": True}),
    ("embed", {"use_weighted_layer_sum": True}),
])  # fmt: skip
def test_loss_and_gradients_of_other_heads(task: str, fields: dict[str, Any]) -> None:
    learner, peer = both(task, **fields)
    made = batch(LENGTHS, targets(LENGTHS, seed=2))
    mine, theirs = our_loss(learner, task, made), peer_loss(peer, task, made)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=0)
    mine.backward()
    theirs.backward()
    assert_gradients_are_the_same(gradients(learner, task), peer)


def test_the_published_loss_of_frames() -> None:
    """Cross-entropy against the one speaker of each frame, as the peer has it; the peer gets no padding."""
    learner, peer = both("diarize")
    made = batch(LENGTHS)
    speakers = torch.randint(3, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
    active = made.features.with_frames(F.one_hot(speakers, 3))
    encoding = learner.encoder.encode(made.features, mask_time_indices=masks())
    logits = learner.results["diarize"].frame_logits(encoding)
    mine = frame_loss(logits, active.pad(), "single_label_classification")
    rows = zip(range(len(LENGTHS)), active.split(), strict=True)
    losses = [hear(peer, made, row, labels=labels[None]).loss * LENGTHS[row] for row, labels in rows]
    theirs = torch.stack(losses).sum() / sum(LENGTHS)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=0)
    mine.backward()
    theirs.backward()
    assert_gradients_are_the_same(gradients(learner, "diarize"), peer)


@pytest.mark.parametrize("task", HEADS)
def test_ten_steps(task: str) -> None:
    learner, peer = both(task)
    optimisers = [
        torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98)) for model in (learner, peer)
    ]
    losses = []
    for step in range(10):
        made = batch(LENGTHS, targets(LENGTHS, seed=step % 3), seed=step % 3)
        for optimiser in optimisers:
            optimiser.zero_grad()
        pair = our_loss(learner, task, made), peer_loss(peer, task, made)
        for loss, optimiser in zip(pair, optimisers, strict=True):
            loss.backward()
            optimiser.step()
        losses.append([loss.item() for loss in pair])
    mine, theirs = map(list, zip(*losses, strict=True))
    assert mine == pytest.approx(theirs, rel=1e-3)
    assert sum(mine[-3:]) < sum(mine[:3])
