"""Parts of the model that libraries take hold of are called as modules, as published."""

from __future__ import annotations

import accelerate
import pytest
import torch
from peft import LoraConfig, get_peft_model

import w2vbert
from tests.dropin.models import twins


def test_offloaded_weights_come_back_for_each_call() -> None:
    ours, _ = twins(w2vbert.Wav2Vec2BertForCTC)
    features = torch.randn(1, 30, 8)
    expected = ours(features).logits
    accelerate.cpu_offload(ours, execution_device=torch.device("cpu"))
    for _ in range(3):
        torch.testing.assert_close(ours(features).logits, expected)


@pytest.mark.parametrize("target", ["distance_embedding", "pointwise_conv1"])
def test_adapters_learn_on_any_part(target: str) -> None:
    ours, _ = twins(w2vbert.Wav2Vec2BertForCTC)
    features = torch.randn(1, 30, 8)
    before = ours(features).logits.detach()
    adapted = get_peft_model(ours, LoraConfig(r=4, target_modules=[target]))
    torch.testing.assert_close(adapted(input_features=features).logits, before)
    adapted(input_features=features).logits.square().sum().backward()
    learning = {
        name: parameter.grad for name, parameter in adapted.named_parameters() if parameter.requires_grad
    }
    assert learning
    assert all(gradient is not None for gradient in learning.values())
    assert any(gradient.abs().max() > 0 for gradient in learning.values() if gradient is not None)


def test_the_configuration_has_the_type_of_the_weights(tmp_path: object) -> None:
    ours, _ = twins(w2vbert.Wav2Vec2BertForCTC)
    ours.save_pretrained(str(tmp_path))
    loaded = w2vbert.Wav2Vec2BertForCTC.from_pretrained(str(tmp_path), dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    assert loaded.config.torch_dtype == torch.bfloat16
