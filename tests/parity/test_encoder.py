"""Wav2Vec2BertModel against the peer's: numbers, shapes, weights and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.parity.configs import POSITIONS, assert_gradients_match, batch, pair, random_config, valid
from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.encoder import attention
from w2vbert.model import Wav2Vec2BertModel

# Rounding alone gives about 1e-6; a norm over a few nearly equal values can multiply that.
CLOSE = {"atol": 3e-5, "rtol": 1e-5}

CLIPS = st.lists(st.integers(1, 40), min_size=1, max_size=4)


def alone(model: torch.nn.Module, features: Tensor, lengths: list[int]) -> Tensor:
    """Last hidden states of each clip run by itself, one after another."""
    clips = [features[row : row + 1, :length] for row, length in enumerate(lengths)]
    return torch.cat([model(clip).last_hidden_state[0] for clip in clips])


@pytest.mark.parametrize("positions", POSITIONS)
@given(seed=st.integers(0, 10**6), lengths=CLIPS, extra=st.integers(0, 3))
@settings(max_examples=12, deadline=None)
@torch.no_grad()
def test_padded_batch(positions: str | None, seed: int, lengths: list[int], extra: int) -> None:
    config = random_config(seed, position_embeddings_type=positions, add_adapter=False)
    ours, peer = pair(Wav2Vec2BertModel, config, seed)
    features, mask = batch(config, lengths, seed, extra)
    ours_out = ours(features, mask, output_hidden_states=True)
    peer_out = peer(features, attention_mask=mask, output_hidden_states=True)
    assert ours_out.last_hidden_state.shape == peer_out.last_hidden_state.shape
    assert len(ours_out.hidden_states) == len(peer_out.hidden_states)
    for mine, theirs in zip(
        (ours_out.last_hidden_state, ours_out.extract_features, *ours_out.hidden_states),
        (peer_out.last_hidden_state, peer_out.extract_features, *peer_out.hidden_states),
        strict=True,
    ):
        torch.testing.assert_close(valid(mine, lengths), valid(theirs, lengths), **CLOSE)
        assert not mine[mask == 0].any(), "padding of outputs is zero"


@pytest.mark.slow
@pytest.mark.parametrize("positions", POSITIONS)
@given(seed=st.integers(0, 10**6), lengths=st.lists(st.integers(4, 40), min_size=1, max_size=4))
@settings(max_examples=8, deadline=None)
@torch.no_grad()
def test_adapter_gives_each_clip_what_the_peer_gives_it_alone(
    positions: str | None, seed: int, lengths: list[int]
) -> None:
    config = random_config(seed, position_embeddings_type=positions, add_adapter=True)
    ours, peer = pair(Wav2Vec2BertModel, config, seed)
    features, mask = batch(config, lengths, seed)
    states = ours(features, mask).last_hidden_state
    assert states.shape == peer(features, attention_mask=mask).last_hidden_state.shape
    mine = valid(states, ours.output_lengths(lengths))
    torch.testing.assert_close(mine, alone(peer, features, lengths), **CLOSE)


@torch.no_grad()
def test_the_peers_adapter_depends_on_padding_and_ours_does_not() -> None:
    config = random_config(3, add_adapter=True, num_adapter_layers=2)
    ours, peer = pair(Wav2Vec2BertModel, config)
    lengths = [21, 40]
    features, mask = batch(config, lengths)
    kept = ours.output_lengths(lengths)
    ours_error, peer_error = (
        (
            valid(model(features, attention_mask=mask).last_hidden_state, kept)
            - alone(model, features, lengths)
        )
        .abs()
        .max()
        for model in (ours, peer)
    )
    assert ours_error < 1e-5
    assert peer_error > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 2), (3, 1), (5, 2), (4, 3), (7, 4)])
@torch.no_grad()
def test_adapter_lengths_are_those_of_the_convolution(kernel: int, stride: int) -> None:
    config = random_config(5, add_adapter=True, adapter_kernel_size=kernel, adapter_stride=stride)
    ours, peer = pair(Wav2Vec2BertModel, config)
    features, _ = batch(config, [31])
    expected = peer(features).last_hidden_state
    assert ours.output_lengths([31]) == (expected.shape[1],)
    torch.testing.assert_close(ours(features).last_hidden_state, expected, **CLOSE)


@pytest.mark.parametrize("positions", POSITIONS)
@torch.no_grad()
def test_attention_weights(positions: str | None) -> None:
    config = random_config(7, position_embeddings_type=positions, num_hidden_layers=2)
    ours, peer = pair(Wav2Vec2BertModel, config)
    peer.set_attn_implementation("eager")
    lengths = [13, 6]
    features, mask = batch(config, lengths, extra=2)
    mine = ours(features, mask, output_attentions=True).attentions
    theirs = peer(features, attention_mask=mask, output_attentions=True).attentions
    assert len(mine) == len(theirs) == 2
    for ours_layer, peer_layer in zip(mine, theirs, strict=True):
        assert ours_layer.shape == peer_layer.shape
        expected = peer_layer * mask[:, None, :, None]
        torch.testing.assert_close(ours_layer, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("positions", POSITIONS)
def test_many_blocks_of_queries(positions: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips of several blocks, numbers and gradients."""
    monkeypatch.setattr(attention, "_BLOCK_ELEMENTS", 1)  # the smallest blocks: 64 queries
    config = random_config(
        29, position_embeddings_type=positions, add_adapter=False, left_max_position_embeddings=64
    )
    ours, peer = pair(Wav2Vec2BertModel, config)
    lengths = [257, 100]
    features, mask = batch(config, lengths)
    target = torch.randn(sum(lengths), config.hidden_size, generator=torch.Generator().manual_seed(2))
    states = [
        valid(model(features, attention_mask=mask).last_hidden_state, lengths) for model in (ours, peer)
    ]
    torch.testing.assert_close(*states, **CLOSE)
    for of_model in states:
        (of_model * target).sum().backward()
    assert_gradients_match(ours, peer)


@pytest.mark.slow
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("add_adapter", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients(positions: str | None, add_adapter: bool, checkpointing: bool) -> None:
    """Of a padded batch here, of each clip alone there: the peer's adapter reads padding."""
    config = random_config(
        11, position_embeddings_type=positions, add_adapter=add_adapter, apply_spec_augment=True,
        mask_time_prob=0.1,
    )  # fmt: skip
    ours, peer = pair(Wav2Vec2BertModel, config)
    if checkpointing:
        ours.gradient_checkpointing_enable()
    lengths = [29, 12, 21]
    features, mask = batch(config, lengths)
    masked = (torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)) < 0.2) & (mask > 0)
    kept = ours.output_lengths(lengths)
    target = torch.randn(sum(kept), config.encoded_size, generator=torch.Generator().manual_seed(2))
    ours.train(), peer.train()
    states = ours(features, mask, mask_time_indices=masked).last_hidden_state
    (valid(states, kept) * target).sum().backward()
    for row, (length, of_clip) in enumerate(zip(lengths, target.split(kept), strict=True)):
        clip = {"mask_time_indices": masked[row : row + 1, :length]}
        states = peer(features[row : row + 1, :length], **clip).last_hidden_state
        (states[0] * of_clip).sum().backward()
    assert_gradients_match(ours, peer)


def test_mask_embedding_in_evaluation() -> None:
    config = random_config(13, apply_spec_augment=True, mask_time_prob=0.1, add_adapter=False)
    ours, peer = pair(Wav2Vec2BertModel, config)
    lengths = [17, 9]
    features, mask = batch(config, lengths)
    masked = torch.zeros(mask.shape, dtype=torch.bool)
    masked[0, 3:8] = masked[1, 2] = True
    with torch.no_grad():
        mine = ours(features, mask, mask_time_indices=masked).last_hidden_state
        theirs = peer(features, attention_mask=mask, mask_time_indices=masked).last_hidden_state
        unmasked = ours(features, mask).last_hidden_state
    torch.testing.assert_close(valid(mine, lengths), valid(theirs, lengths), **CLOSE)
    assert not torch.allclose(mine, unmasked)


@pytest.mark.parametrize("positions", POSITIONS)
@torch.no_grad()
def test_bfloat16(positions: str | None) -> None:
    config = random_config(17, position_embeddings_type=positions, add_adapter=False, num_hidden_layers=2)
    lengths = [33, 20]
    features, mask = batch(config, lengths)
    exact = valid(pair(Wav2Vec2BertModel, config)[0](features, mask).last_hidden_state, lengths)
    errors = []
    # Fresh models: a peer that has run in float32 keeps rotations of that type (see test_positions).
    for model in pair(Wav2Vec2BertModel, config):
        states = model.bfloat16()(features.bfloat16(), attention_mask=mask).last_hidden_state
        assert states.dtype == torch.bfloat16
        errors.append((valid(states, lengths).float() - exact).pow(2).mean().sqrt())
    # Both are rounded, differently: ours may be no farther from the exact numbers than the peer is.
    assert errors[0] < 1.25 * errors[1] + 1e-3


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_what_we_save_the_peer_loads(seed: int, tmp_path: Path) -> None:
    config = random_config(seed, add_adapter=seed % 2 == 1)
    ours, _ = pair(Wav2Vec2BertModel, config, seed)
    ours.save_pretrained(tmp_path)
    peer, info = transformers.Wav2Vec2BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    features, _ = batch(config, [19], seed)
    torch.testing.assert_close(ours(features).last_hidden_state, peer(features).last_hidden_state, **CLOSE)


def test_dropouts_sit_where_the_published_ones_do() -> None:
    config = random_config(
        23,
        hidden_dropout=0.11,
        activation_dropout=0.12,
        attention_dropout=0.13,
        feat_proj_dropout=0.14,
        conformer_conv_dropout=0.15,
        add_adapter=True,
        use_intermediate_ffn_before_adapter=True,
    )
    ours, peer = pair(Wav2Vec2BertModel, config)
    mine, theirs = (
        {name: module.p for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
        for model in (ours, peer)
    )
    assert mine == theirs
    assert set(mine.values()) == {0.11, 0.12, 0.13, 0.14, 0.15}


def test_state_dict_has_the_published_names_at_full_size() -> None:
    with torch.device("meta"):
        ours = Wav2Vec2BertModel(Wav2Vec2BertConfig(add_adapter=True))
        peer = transformers.Wav2Vec2BertModel(transformers.Wav2Vec2BertConfig(add_adapter=True))
    shapes = [{name: tensor.shape for name, tensor in m.state_dict().items()} for m in (ours, peer)]
    assert shapes[0] == shapes[1]


@pytest.mark.slow
def test_initial_weights_follow_the_published_scheme() -> None:
    """Mean and deviation of every parameter as the peer draws them, over several drawings."""
    config = random_config(
        19, hidden_size=32, num_attention_heads=2, num_hidden_layers=3, intermediate_size=64,
        position_embeddings_type="relative", add_adapter=True, output_hidden_size=24, apply_spec_augment=True,
        feature_projection_input_dim=20, initializer_range=0.07,
    )  # fmt: skip
    torch.manual_seed(0)
    peer_class = transformers.Wav2Vec2BertModel
    ours, peer = ([make() for _ in range(6)] for make in (
        lambda: Wav2Vec2BertModel(config),
        lambda: peer_class(transformers.Wav2Vec2BertConfig.from_dict(config.to_dict())),
    ))  # fmt: skip
    for name, parameter in ours[0].named_parameters():
        mine, theirs = (
            torch.stack([dict(model.named_parameters())[name].detach() for model in models])
            for models in (ours, peer)
        )
        if theirs.std() == 0:
            assert torch.equal(mine, theirs), name
            continue
        spread = theirs.std().item()
        slack = 6 / parameter.numel() ** 0.5
        assert mine.std().item() == pytest.approx(spread, rel=min(slack, 0.6)), name
        assert mine.mean().item() == pytest.approx(theirs.mean().item(), abs=spread * slack), name
        assert mine.abs().max().item() < 2.5 * theirs.abs().max().item(), name
