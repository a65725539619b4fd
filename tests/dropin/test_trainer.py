"""The peer's Trainer trains, evaluates, saves and resumes our model as it does its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers

import w2vbert
from tests.dropin.models import clips, collate, twins, untrained_twins

pytestmark = pytest.mark.slow


def trainer(model: Any, folder: Path, **arguments: Any) -> transformers.Trainer:
    usual: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "max_steps": 20,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "seed": 3,
    }
    return transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(output_dir=str(folder), **{**usual, **arguments}),
        train_dataset=datasets.Dataset.from_list(clips(8)),
        eval_dataset=datasets.Dataset.from_list(clips(6, seed=1)),
        data_collator=collate,
    )


def losses(run: transformers.Trainer) -> np.ndarray:
    transformers.set_seed(0)  # grouping by length draws from the default generator
    run.train()
    return np.array([entry["loss"] for entry in run.state.log_history if "loss" in entry])


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"bf16": True},
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False},
    ],
    ids=str,
)
def test_losses_are_the_peer_s(arguments: dict[str, Any], tmp_path: Path) -> None:
    ours, peer = untrained_twins(w2vbert.Wav2Vec2BertForCTC)
    mine, its = (trainer(model, tmp_path, **arguments) for model in (ours, peer))
    curve, expected = losses(mine), losses(its)
    assert len(curve) == 20
    assert curve[-2:].sum() < curve[:2].sum()
    np.testing.assert_allclose(curve, expected, rtol=1e-3)
    assert mine.evaluate()["eval_loss"] == pytest.approx(its.evaluate()["eval_loss"], abs=1e-3)


def test_accumulated_steps_are_the_mean(tmp_path: Path) -> None:
    """The published loss takes the number of items and does nothing with it: Trainer then adds up."""
    ours, peer = untrained_twins(w2vbert.Wav2Vec2BertForCTC)
    mine, its = (trainer(model, tmp_path, gradient_accumulation_steps=2) for model in (ours, peer))
    np.testing.assert_allclose(losses(mine), losses(its) / 2, rtol=1e-3)


def test_predictions_are_the_peer_s(tmp_path: Path) -> None:
    ours, peer = twins(w2vbert.Wav2Vec2BertForSequenceClassification, num_labels=3)
    data = [{**clip, "labels": clip["labels"][0] % 3} for clip in clips(6)]

    def collate_labels(batch: Any) -> dict[str, torch.Tensor]:
        padded = collate([{**clip, "labels": [0]} for clip in batch])
        return {**padded, "labels": torch.tensor([clip["labels"] for clip in batch])}

    results = []
    for model in (ours, peer):
        run = trainer(model, tmp_path)
        run.data_collator = collate_labels
        results.append(run.predict(data))
    mine, its = results
    np.testing.assert_allclose(mine.predictions, its.predictions, atol=1e-5)
    np.testing.assert_array_equal(mine.label_ids, its.label_ids)
    assert mine.metrics["test_loss"] == pytest.approx(its.metrics["test_loss"], abs=1e-4)


def test_a_resumed_run_is_the_unbroken_one(tmp_path: Path) -> None:
    ours, _ = twins(w2vbert.Wav2Vec2BertForCTC, hidden_dropout=0.1)
    unbroken = trainer(ours, tmp_path / "unbroken", save_strategy="steps", save_steps=10)
    unbroken.train()
    checkpoint = tmp_path / "checkpoint-10"
    shutil.copytree(tmp_path / "unbroken" / "checkpoint-10", checkpoint)
    other, _ = twins(w2vbert.Wav2Vec2BertForCTC, seed=1, hidden_dropout=0.1)
    resumed = trainer(other, tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == 20
    for name, weight in ours.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight), name


def test_what_it_saves_is_loaded(tmp_path: Path) -> None:
    """As it is, by our class and the peer's: whole models, and each checkpoint on the way."""
    ours, _ = twins(w2vbert.Wav2Vec2BertForCTC)
    run = trainer(ours, tmp_path, max_steps=2, save_strategy="steps", save_steps=2)
    run.train()
    run.save_model(str(tmp_path / "saved"))
    for folder in (tmp_path / "saved", tmp_path / "checkpoint-2"):
        again = w2vbert.Wav2Vec2BertForCTC.from_pretrained(folder)
        its = transformers.Wav2Vec2BertForCTC.from_pretrained(folder)
        assert its.config.architectures == ["Wav2Vec2BertForCTC"]
        for name, weight in ours.state_dict().items():
            assert torch.equal(again.state_dict()[name], weight)
            assert torch.equal(its.state_dict()[name], weight)
