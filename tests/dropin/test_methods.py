"""Methods and attributes of the published classes that scripts use."""

from __future__ import annotations

import pytest
import torch

import w2vbert
from tests.dropin.models import clips, collate, twins


def test_attributes_are_the_peer_s() -> None:
    ours, peer = twins(w2vbert.Wav2Vec2BertForCTC, add_adapter=True, num_adapter_layers=2)
    assert ours.config_class is w2vbert.Wav2Vec2BertConfig
    for name in (
        "main_input_name",
        "base_model_prefix",
        "input_modalities",
        "supports_gradient_checkpointing",
    ):
        assert getattr(ours, name) == getattr(peer, name), name
    for arguments in ({}, {"only_trainable": True}, {"exclude_embeddings": True}):
        assert ours.num_parameters(**arguments) == peer.num_parameters(**arguments)
    ours.freeze_base_model()
    assert ours.num_parameters(only_trainable=True) == sum(
        p.numel() for p in ours.parameters() if p.requires_grad
    )
    parameters = peer.get_memory_footprint(return_buffers=False)
    assert ours.get_memory_footprint() == ours.get_memory_footprint(return_buffers=False) == parameters
    assert ours.can_generate() is peer.can_generate() is False
    assert ours.get_output_embeddings() is peer.get_output_embeddings() is None
    for model in (ours, peer):
        with pytest.raises(NotImplementedError):
            model.get_input_embeddings()
        model.tie_weights()
    ours.add_model_tags("one")
    ours.add_model_tags(["one", "two"])
    assert ours.model_tags == ["one", "two"]
    logits = ours(**ours.dummy_inputs).logits
    assert logits.shape[1] == ours._get_feat_extract_output_lengths(50) == 13


def test_lengths_are_the_peer_s() -> None:
    ours, peer = twins(w2vbert.Wav2Vec2BertForCTC, add_adapter=True, num_adapter_layers=2)
    lengths = torch.arange(1, 60)
    for add_adapter in (None, True, False):
        mine = ours._get_feat_extract_output_lengths(lengths, add_adapter=add_adapter)
        assert torch.equal(mine, peer._get_feat_extract_output_lengths(lengths, add_adapter=add_adapter))


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_layers_have_the_same_gradients(reentrant: bool, every: int, offload: bool) -> None:
    ours, _ = twins(w2vbert.Wav2Vec2BertForCTC)
    batch = collate(clips(3))
    ours.train()(**batch).loss.backward()
    expected = {
        name: parameter.grad.clone()
        for name, parameter in ours.named_parameters()
        if parameter.grad is not None
    }
    ours.zero_grad()
    calls: list[int] = []
    layers = ours.wav2vec2_bert.encoder.layers
    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
    ours.activation_checkpointing_enable({"use_reentrant": reentrant}, every_n_layers=every, offload=offload)
    assert ours.is_gradient_checkpointing
    ours(**batch).loss.backward()
    assert sorted(calls) == ([0, 0, 1, 1] if every == 1 else [0, 0, 1])
    for name, parameter in ours.named_parameters():
        if name in expected:
            assert torch.allclose(parameter.grad, expected[name], atol=1e-5), name
    ours.gradient_checkpointing_disable()
    assert not ours.is_activation_checkpointing


def test_a_key_of_old_configurations_turns_it_on() -> None:
    config = w2vbert.Wav2Vec2BertConfig(
        vocab_size=5, hidden_size=16, num_hidden_layers=1, gradient_checkpointing=True
    )
    model = w2vbert.Wav2Vec2BertForCTC(config)
    assert model.is_gradient_checkpointing
    assert "gradient_checkpointing" not in config.to_dict()


def test_inputs_that_require_gradients() -> None:
    ours, _ = twins(w2vbert.Wav2Vec2BertModel)
    ours.requires_grad_(False)
    batch = collate(clips(2))
    del batch["labels"]
    assert not ours(**batch).last_hidden_state.requires_grad
    ours.enable_input_require_grads()
    assert ours(**batch).last_hidden_state.requires_grad
    ours.disable_input_require_grads()
    assert not ours(**batch).last_hidden_state.requires_grad


def test_attention_has_two_names_and_one_result() -> None:
    ours, _ = twins(w2vbert.Wav2Vec2BertModel)
    batch = collate(clips(2))
    del batch["labels"]
    expected = ours(**batch).last_hidden_state
    ours.set_attn_implementation("eager")
    assert ours.config._attn_implementation == "eager"
    assert torch.equal(ours(**batch).last_hidden_state, expected)
    with pytest.raises(ValueError, match='attn_implementation="foo"` is not supported'):
        ours.set_attn_implementation("foo")


def test_made_from_a_configuration() -> None:
    config = w2vbert.Wav2Vec2BertConfig(hidden_size=16, num_hidden_layers=1)
    model = w2vbert.Wav2Vec2BertModel._from_config(config, dtype="bfloat16", attn_implementation="eager")
    assert model.dtype == torch.bfloat16
    assert config._attn_implementation == "eager"
