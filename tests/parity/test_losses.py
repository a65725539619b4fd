"""Losses and gradients of the task models against the peer's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parity.configs import assert_gradients_match, batch, pair
from tests.parity.test_heads import CASES, CLIPS, TASKS, task_config
from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.heads import (
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2BertForXVector,
)
from w2vbert.heads.task import TaskModel


def random_labels(task: type[TaskModel], config: Wav2Vec2BertConfig, seed: int) -> Tensor:
    """Labels of a batch of `CLIPS`, as the published classes take them."""
    generator = torch.Generator().manual_seed(seed)
    if task is Wav2Vec2BertForCTC:
        assert config.vocab_size is not None
        labels = torch.randint(config.vocab_size, (len(CLIPS), 5), generator=generator)
        labels[1, 3:] = -100
        return labels
    if task is Wav2Vec2BertForAudioFrameClassification:
        classes = torch.randint(config.num_labels, (len(CLIPS), max(CLIPS)), generator=generator)
        return torch.nn.functional.one_hot(classes, config.num_labels)
    return torch.randint(config.num_labels, (len(CLIPS),), generator=generator)


def peer_loss(task: type[TaskModel], peer: Any, features: Tensor, labels: Tensor) -> Tensor:
    """The loss of a batch from the peer's losses of its clips, each alone: no padding, so none can leak."""
    losses = []
    for row, length in enumerate(CLIPS):
        label = labels[row : row + 1]
        label = label[:, :length] if label.dim() == 3 else label
        losses.append(peer(features[row : row + 1, :length], labels=label).loss)
    if task is Wav2Vec2BertForCTC and peer.config.ctc_loss_reduction == "sum":
        return torch.stack(losses).sum()
    if task is Wav2Vec2BertForAudioFrameClassification:
        weights = torch.tensor(CLIPS) / sum(CLIPS)
        return (torch.stack(losses) * weights).sum()
    return torch.stack(losses).mean()


@pytest.mark.slow
@pytest.mark.parametrize(("task", "positions", "seed"), CASES)
def test_loss_and_gradients(task: type[TaskModel], positions: str | None, seed: int) -> None:
    fixed: dict[str, Any] = {"position_embeddings_type": positions}
    if task is Wav2Vec2BertForCTC:
        fixed["ctc_loss_reduction"] = ("sum", "mean")[seed % 2]
    elif task is Wav2Vec2BertForAudioFrameClassification:
        fixed["problem_type"] = "single_label_classification"
    config = task_config(task, seed, **fixed)
    ours, peer = pair(task, config, seed)
    features, mask = batch(config, CLIPS, seed)
    labels = random_labels(task, config, seed)
    for model in (ours, peer):
        model.train()
    mine, theirs = ours(features, mask, labels=labels).loss, peer_loss(task, peer, features, labels)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=0)
    mine.backward()
    theirs.backward()
    assert_gradients_match(ours, peer)


@pytest.mark.parametrize("task", TASKS[:2])
@pytest.mark.parametrize("seed", range(4))
def test_loss_of_a_padded_batch(task: type[TaskModel], seed: int) -> None:
    config = task_config(task, seed, add_adapter=False, ctc_loss_reduction=("sum", "mean")[seed % 2])
    ours, peer = pair(task, config, seed)
    features, mask = batch(config, CLIPS, seed)
    labels = random_labels(task, config, seed)
    mine, theirs = (model(features, attention_mask=mask, labels=labels).loss for model in (ours, peer))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=0)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_ctc_target_longer_than_the_clip(reduction: str, zero_infinity: bool) -> None:
    config = task_config(
        Wav2Vec2BertForCTC,
        8,
        add_adapter=False,
        ctc_loss_reduction=reduction,
        ctc_zero_infinity=zero_infinity,
    )
    ours, peer = pair(Wav2Vec2BertForCTC, config)
    features, mask = batch(config, [20, 3])
    token = 1 if config.pad_token_id == 0 else 0
    labels = torch.full((2, 6), token)
    mine, theirs = (model(features, attention_mask=mask, labels=labels).loss for model in (ours, peer))
    assert mine.isinf() != zero_infinity
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=0)


def test_ctc_loss_of_each_clip() -> None:
    config = task_config(Wav2Vec2BertForCTC, 9, ctc_loss_reduction="none", add_adapter=False)
    ours, peer = pair(Wav2Vec2BertForCTC, config)
    features, mask = batch(config, CLIPS)
    labels = random_labels(Wav2Vec2BertForCTC, config, 9)
    mine, theirs = (model(features, attention_mask=mask, labels=labels).loss for model in (ours, peer))
    assert mine.shape == (len(CLIPS),)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=0)


def test_ctc_loss_is_computed_in_fp32() -> None:
    config = task_config(Wav2Vec2BertForCTC, 10, add_adapter=False)
    ours, peer = pair(Wav2Vec2BertForCTC, config)
    features, mask = batch(config, CLIPS)
    labels = random_labels(Wav2Vec2BertForCTC, config, 10)
    exact = ours(features, mask, labels=labels).loss
    rounded = ours.bfloat16()(features.bfloat16(), mask, labels=labels).loss
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=0.02)
    assert peer(features, attention_mask=mask, labels=labels).loss.item() == pytest.approx(
        exact.item(), rel=1e-4
    )


def test_unannotated_clips_do_not_count() -> None:
    config = task_config(Wav2Vec2BertForSequenceClassification, 11)
    ours, peer = pair(Wav2Vec2BertForSequenceClassification, config)
    features, mask = batch(config, CLIPS)
    labels = torch.tensor([1, -100, 0])
    mine, theirs = (model(features, attention_mask=mask, labels=labels).loss for model in (ours, peer))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=0)


def test_frozen_encoder_gets_no_gradients() -> None:
    config = task_config(Wav2Vec2BertForXVector, 12, add_adapter=False)
    ours, peer = pair(Wav2Vec2BertForXVector, config)
    features, _ = batch(config, [max(CLIPS)] * 3)
    for model in (ours, peer):
        model.freeze_base_model()
        model(features, labels=torch.tensor([0, 1, 0])).loss.backward()
    assert all(parameter.grad is None for parameter in ours.wav2vec2_bert.parameters())
    assert_gradients_match(ours, peer)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_gradient_checkpointing_changes_no_gradient(task: type[TaskModel]) -> None:
    config = task_config(task, 13)
    plain, _ = pair(task, config)
    frugal, _ = pair(task, config)
    frugal.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert frugal.is_gradient_checkpointing
    assert not plain.is_gradient_checkpointing
    features, mask = batch(config, CLIPS)
    for model in (plain, frugal):
        model.train()
        model(features, mask, labels=random_labels(task, config, 13)).loss.backward()
    assert_gradients_match(frugal, plain, tolerance=1e-5)
    frugal.gradient_checkpointing_disable()
    assert not frugal.is_gradient_checkpointing
