"""Parts of the model that libraries take hold of are called as modules, as published."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import distributed
from torch.distributed.fsdp import fully_shard

import w2vbert
from tests.dropin.models import clips, collate, twins

HEADS = [
    w2vbert.Wav2Vec2BertForCTC,
    w2vbert.Wav2Vec2BertForSequenceClassification,
    w2vbert.Wav2Vec2BertForAudioFrameClassification,
    w2vbert.Wav2Vec2BertForXVector,
]


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def padded() -> dict[str, torch.Tensor]:
    batch = collate(clips(3))
    return {name: batch[name] for name in ("input_features", "attention_mask")}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("head", "adapter"), [*((head, False) for head in HEADS), (HEADS[0], True), (HEADS[3], True)]
)
def test_heads_call_the_base_model(head: Any, weighted: bool, adapter: bool) -> None:
    """A hook on it sees, and may change, what the peer's sees."""
    ours, peer = twins(head, use_weighted_layer_sum=weighted, add_adapter=adapter, num_adapter_layers=1)
    seen: list[Any] = []

    def double(module: Any, arguments: Any, output: Any) -> Any:
        seen.append((type(module).__name__, output.last_hidden_state.detach()))
        output["last_hidden_state"] = output.last_hidden_state * 2
        return output

    for model in (ours, peer):
        model.wav2vec2_bert.register_forward_hook(double)
    clip = padded()["input_features"][:1]
    logits, expected = ours(clip).logits, peer(clip).logits
    assert [name for name, _ in seen] == ["Wav2Vec2BertModel"] * 2
    torch.testing.assert_close(seen[0][1], seen[1][1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_the_base_model_is_compiled_by_itself(head: Any) -> None:
    ours, _ = twins(head)
    expected = ours(**padded()).logits
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        calls.append(len(graph.graph.nodes))
        return graph.forward

    ours.wav2vec2_bert = torch.compile(ours.wav2vec2_bert, backend=backend)
    torch.testing.assert_close(ours(**padded()).logits, expected)
    assert calls


def test_the_base_model_is_sharded_by_itself(one_process: None) -> None:
    ours, _ = twins(w2vbert.Wav2Vec2BertForCTC)
    expected = ours(**padded()).logits
    fully_shard(ours.wav2vec2_bert, mesh=distributed.init_device_mesh("cpu", (1,)))
    logits = ours(**padded()).logits
    torch.testing.assert_close(logits, expected)
    logits.square().sum().backward()
    assert all(weight.grad is not None for weight in ours.wav2vec2_bert.encoder.parameters())


def test_a_whole_model_is_sharded(one_process: None) -> None:
    ours, _ = twins(w2vbert.Wav2Vec2BertForCTC)
    expected = ours(**padded()).logits
    mesh = distributed.init_device_mesh("cpu", (1,))
    for layer in ours.wav2vec2_bert.encoder.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(ours, mesh=mesh)
    assert type(ours).__name__ == "FSDPWav2Vec2BertForCTC"
    assert isinstance(ours, w2vbert.Wav2Vec2BertForCTC)
    torch.testing.assert_close(ours(**padded()).logits, expected)


@pytest.mark.parametrize("head", HEADS)
def test_models_pass_for_published_ones(head: Any, tmp_path: Path) -> None:
    ours, _ = twins(head)
    expected = ours(**padded()).logits
    assert isinstance(ours, transformers.PreTrainedModel)
    torch.save(ours, tmp_path / "whole.pt")
    whole = torch.load(tmp_path / "whole.pt", weights_only=False)
    for again in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), whole):
        assert type(again) is head
        torch.testing.assert_close(again(**padded()).logits, expected, rtol=0, atol=0)


class Forgetful(w2vbert.Wav2Vec2BertForCTC):
    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "notes": None}


def test_a_subclass_says_what_is_copied() -> None:
    ours, _ = twins(w2vbert.Wav2Vec2BertForCTC)
    model = Forgetful(ours.config)
    model.notes = "here"  # type: ignore[assignment]
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (type(again), again.notes) == (Forgetful, None)
        assert torch.equal(again.lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize("layer", ["cpu", "disk"])
def test_checkpoints_are_spread(layer: str, tmp_path: Path) -> None:
    ours, _ = twins(w2vbert.Wav2Vec2BertForCTC, mask_time_prob=0.0, mask_feature_prob=0.0)
    ours.save_pretrained(tmp_path)
    with accelerate.init_empty_weights():
        empty = w2vbert.Wav2Vec2BertForCTC(ours.config)
    where = {"wav2vec2_bert.feature_projection": "cpu", "lm_head": "disk"}
    where |= {"wav2vec2_bert.encoder.layers.0": layer, "wav2vec2_bert.encoder.layers.1": "disk"}
    spread = accelerate.load_checkpoint_and_dispatch(
        empty, tmp_path, device_map=where, offload_folder=tmp_path / "offloaded"
    ).eval()
    torch.testing.assert_close(spread(**padded()).logits, ours(**padded()).logits)


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


def test_the_configuration_has_the_type_of_the_weights(tmp_path: Path) -> None:
    ours, _ = twins(w2vbert.Wav2Vec2BertForCTC)
    ours.save_pretrained(str(tmp_path))
    loaded = w2vbert.Wav2Vec2BertForCTC.from_pretrained(str(tmp_path), dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    assert loaded.config.torch_dtype == torch.bfloat16
