"""A LoRA trained on ours is one of the peer's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch

import w2vbert
from tests.dropin.models import clips, collate, twins


def train(model: Any, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    curve = []
    for _ in range(steps):
        loss = model(**collate(clips(4))).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        curve.append(loss.item())
    return curve


@pytest.mark.parametrize(
    ("head", "task"),
    [
        (w2vbert.Wav2Vec2BertForCTC, "FEATURE_EXTRACTION"),
        (w2vbert.Wav2Vec2BertModel, "FEATURE_EXTRACTION"),
        (w2vbert.Wav2Vec2BertForSequenceClassification, "SEQ_CLS"),
        (w2vbert.Wav2Vec2BertForXVector, "SEQ_CLS"),
        (w2vbert.Wav2Vec2BertForAudioFrameClassification, "TOKEN_CLS"),
    ],
)
def test_tasks_that_name_other_inputs(head: Any, task: str) -> None:
    """peft calls every model of a task with `input_ids=None` and the like."""
    pair = twins(head)
    features = torch.randn(1, 40, 8)
    expected = pair[0](features)[0]
    for model in pair:
        adapted = peft.get_peft_model(model, peft.LoraConfig(task_type=task, target_modules=["linear_q"]))
        assert torch.allclose(adapted(input_features=features)[0], expected, atol=1e-5)
    with pytest.raises(TypeError, match="input_ids"):
        pair[0](features, input_ids=features)


@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": False}, {"use_reentrant": True}])
def test_trained_on_ours_runs_and_merges_on_the_peer(
    checkpointing: dict[str, bool] | None, tmp_path: Path
) -> None:
    ours, peer = twins(w2vbert.Wav2Vec2BertForCTC)
    adapter = peft.LoraConfig(r=4, target_modules=["linear_q", "linear_v"], init_lora_weights=False)
    torch.manual_seed(0)
    model = peft.get_peft_model(ours, adapter)
    if checkpointing is not None:
        ours.gradient_checkpointing_enable(gradient_checkpointing_kwargs=checkpointing)
        ours.enable_input_require_grads()
    model.train()
    curve = train(model, 10)
    assert curve[-1] < curve[0]
    model.save_pretrained(tmp_path)
    features = {name: value for name, value in collate(clips(3, seed=2)).items() if name != "labels"}
    with torch.no_grad():
        expected = model.eval()(**features).logits
        theirs = peft.PeftModel.from_pretrained(peer, str(tmp_path)).eval()
        mask = features["attention_mask"].bool()
        assert torch.allclose(theirs(**features).logits[mask], expected[mask], atol=1e-5)
        merged = theirs.merge_and_unload()
        assert torch.allclose(merged(**features).logits[mask], expected[mask], atol=1e-5)
        assert torch.allclose(model.merge_and_unload()(**features).logits[mask], expected[mask], atol=1e-5)
