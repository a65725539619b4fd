"""The bare model: batch invariance, masks, SpecAugment, outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.model import Draws, Wav2Vec2BertModel
from w2vbert.packing import MaskError, Packed

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 24,
    "feature_projection_input_dim": 8,
    "layerdrop": 0.0,
    "conformer_conv_dropout": 0.0,
}
LENGTHS = [31, 8, 19, 1]


def build(**fields: Any) -> Wav2Vec2BertModel:
    torch.manual_seed(0)
    model = Wav2Vec2BertModel(Wav2Vec2BertConfig(**{**SIZES, **fields})).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model


def clips(lengths: list[int] = LENGTHS) -> Packed:
    generator = torch.Generator().manual_seed(0)
    return Packed.from_sequences([torch.randn(length, 8, generator=generator) for length in lengths])


@pytest.mark.parametrize("positions", ["relative_key", "relative", "rotary", None])
@pytest.mark.parametrize("add_adapter", [False, True])
@torch.no_grad()
def test_a_clip_does_not_depend_on_its_batch(positions: str | None, add_adapter: bool) -> None:
    model = build(position_embeddings_type=positions, add_adapter=add_adapter)
    packed = clips()
    together = model(packed.pad(7.0), packed.mask(), output_hidden_states=True)
    encoded = model.encode(packed, output_hidden_states=True)
    for row, clip in enumerate(packed.split()):
        alone = model(clip.unsqueeze(0), output_hidden_states=True)
        frames = alone.last_hidden_state[0]
        assert len(frames) == model.output_lengths([len(clip)])[0]
        torch.testing.assert_close(together.last_hidden_state[row, : len(frames)], frames, atol=1e-5, rtol=0)
        torch.testing.assert_close(encoded.last_hidden_state.split()[row], frames, atol=1e-5, rtol=0)
        for state, of_pack, of_clip in zip(
            together.hidden_states, encoded.hidden_states or (), alone.hidden_states, strict=True
        ):
            torch.testing.assert_close(state[row, : len(clip)], of_clip[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(of_pack.split()[row], of_clip[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_masks_of_any_type_give_the_same() -> None:
    model, packed = build(), clips()
    expected = model(packed.pad(), packed.mask()).last_hidden_state
    for dtype in (torch.int64, torch.float32, torch.float16, torch.uint8):
        assert torch.equal(model(packed.pad(), packed.mask().to(dtype)).last_hidden_state, expected)


def test_masks_without_a_frame_are_refused() -> None:
    mask = torch.ones(2, 5)
    mask[1] = 0
    with pytest.raises(MaskError, match="row 1 marks no frame"):
        build()(torch.zeros(2, 5, 8), mask)


@pytest.mark.parametrize("add_adapter", [False, True])
@torch.no_grad()
def test_padding_on_the_left_changes_nothing(add_adapter: bool) -> None:
    model, packed = build(add_adapter=add_adapter), clips()
    features, mask = packed.pad(), packed.mask()
    right = model(features, mask)
    left = model(features.flip(1).flip(1).roll(3, 1), mask.roll(3, 1)) if not mask[:, -3:].any() else None
    features, mask = packed.pad(length=36), packed.mask(length=36)
    left = model(features.roll(3, 1), mask.roll(3, 1))
    assert torch.allclose(left.last_hidden_state.sum(1), right.last_hidden_state.sum(1), atol=1e-4)


@pytest.mark.parametrize("add_adapter", [False, True])
@torch.no_grad()
def test_outputs(add_adapter: bool) -> None:
    model = build(add_adapter=add_adapter)
    packed = clips()
    features, mask = packed.pad(length=33), packed.mask(length=33)
    output = model(features, mask, output_hidden_states=True, output_attentions=True)
    assert list(output) == ["last_hidden_state", "extract_features", "hidden_states", "attentions"]
    assert output.last_hidden_state.shape == (4, model.output_lengths([33])[0], 32)
    assert [state.shape for state in output.hidden_states] == [(4, 33, 32)] * 3
    assert [weights.shape for weights in output.attentions] == [(4, 4, 33, 33)] * 2
    assert not output.hidden_states[1][~mask].any()
    assert output.attentions[0][1, :, 8:].abs().max() == 0
    same = torch.equal(output.hidden_states[-1], output.last_hidden_state)
    assert same is not add_adapter, "with an adapter, the last hidden state of the encoder is not the output"

    plain = model(features, mask, return_dict=False)
    assert isinstance(plain, tuple)
    assert len(plain) == 2
    torch.testing.assert_close(plain[0], output[0], atol=1e-5, rtol=1e-5)  # other attention path
    model.config.return_dict = False
    model.config.output_hidden_states = True
    assert len(model(features, mask)) == 3


@torch.no_grad()
def test_masks_are_drawn_in_training_alone_and_from_the_generator() -> None:
    model, packed = (
        build(mask_time_prob=0.5, mask_time_length=3, mask_feature_prob=0.4, hidden_dropout=0.0),
        clips(),
    )

    def first_state(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        states = model.encode(packed, output_hidden_states=True, draws=Draws(generator)).hidden_states
        assert states is not None
        return states[0].frames

    clean = first_state(0)
    assert torch.equal(first_state(1), clean)
    model.train()
    assert torch.equal(first_state(1), first_state(1))
    assert not torch.equal(first_state(1), first_state(2))
    masked = first_state(1)
    features_hit = (masked == 0).all(0) | (masked != clean).any(0)
    assert features_hit.any()
    embedded = ((masked == model.masked_spec_embed) | (masked == 0)).all(1)
    assert 0.1 < embedded.float().mean() < 0.8
    untouched = ~embedded
    kept = masked[untouched] != 0
    assert torch.equal(masked[untouched][kept], clean[untouched][kept])


@torch.no_grad()
def test_given_masks() -> None:
    packed = clips([6, 4])
    indices = torch.zeros(2, 6, dtype=torch.long)
    indices[0, 2] = indices[1, 3] = 1

    def states(model: Wav2Vec2BertModel, given: torch.Tensor | None) -> torch.Tensor:
        encoding = model.encode(packed, mask_time_indices=given, output_hidden_states=True)
        assert encoding.hidden_states is not None
        return encoding.hidden_states[0].frames

    model = build()
    changed = (states(model, indices) != states(model, None)).any(1)
    assert changed.nonzero().flatten().tolist() == [2, 9]
    assert torch.equal(states(model, indices)[2], model.masked_spec_embed)

    without = build(mask_time_prob=0.0)
    assert not hasattr(without, "masked_spec_embed")
    assert states(without, indices)[[2, 9]].abs().max() == 0, "no embedding: zeros"

    off = build(apply_spec_augment=False)
    assert torch.equal(states(off, indices), states(off, None)), "ignored, as published"


def test_given_masks_without_an_embedding_and_short_clips_fail_in_the_peer() -> None:
    features, indices = torch.zeros(1, 6, 8), torch.ones(1, 6, dtype=torch.bool)
    peer_class, peer_config = transformers.Wav2Vec2BertModel, transformers.Wav2Vec2BertConfig
    with pytest.raises(AttributeError, match="masked_spec_embed"):
        peer_class(peer_config(**SIZES, mask_time_prob=0.0))(features, mask_time_indices=indices)
    with pytest.raises(ValueError, match="mask_length"):
        peer_class(peer_config(**SIZES)).train()(features)
    assert build().train()(features).last_hidden_state.isfinite().all()


def test_selu_works() -> None:
    with pytest.raises(KeyError, match="selu"):
        transformers.Wav2Vec2BertModel(transformers.Wav2Vec2BertConfig(**SIZES, hidden_act="selu"))
    layer = build(hidden_act="selu", add_adapter=True, adapter_act="selu").encoder.layers[0]
    frames = torch.randn(5, 32)
    expected = layer.ffn1.output_dense(torch.selu(layer.ffn1.intermediate_dense(frames)))
    torch.testing.assert_close(layer.ffn1(frames), expected)


@pytest.mark.parametrize("positions", ["relative_key", "relative", "rotary", None])
@torch.no_grad()
def test_low_precision_on_a_cpu(positions: str | None) -> None:
    model, packed = build(position_embeddings_type=positions), clips()
    exact = model.encode(packed).last_hidden_state.frames
    for dtype, tolerance in ((torch.bfloat16, 0.1), (torch.float16, 0.02)):
        frames = packed.with_frames(packed.frames.to(dtype))
        rounded = model.to(dtype).encode(frames).last_hidden_state.frames
        assert rounded.dtype == dtype
        assert (rounded.float() - exact).pow(2).mean().sqrt() < tolerance
        model.float()


def test_a_training_step_after_inference() -> None:
    model, packed = build(position_embeddings_type="relative"), clips()
    with torch.inference_mode():
        model.encode(packed)
    model.train()
    model.encode(packed).last_hidden_state.frames.square().mean().backward()
    gradient = model.encoder.layers[0].self_attn.linear_pos.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["relative_key", "relative", "rotary", None])
@torch.no_grad()
def test_export(positions: str | None) -> None:
    """A clip of a given length becomes a graph that needs none of this code; models stay usable after it."""
    model = build(position_embeddings_type=positions, add_adapter=True, return_dict=False)
    features = torch.randn(1, 40, 8, generator=torch.Generator().manual_seed(1))
    exported = torch.export.export(model, (features,))
    expected = model(features)[0]
    assert expected.isfinite().all()
    torch.testing.assert_close(exported.module()(features)[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "field",
    [
        "hidden_dropout",
        "activation_dropout",
        "attention_dropout",
        "feat_proj_dropout",
        "conformer_conv_dropout",
    ],
)
@torch.no_grad()
def test_every_dropout_acts_in_training_alone(field: str) -> None:
    model, packed = build(**{field: 0.5}, apply_spec_augment=False), clips()
    clean = build(apply_spec_augment=False).encode(packed).last_hidden_state.frames
    assert torch.equal(model.encode(packed).last_hidden_state.frames, clean)
    assert not torch.allclose(model.train().encode(packed).last_hidden_state.frames, clean, atol=1e-2)
