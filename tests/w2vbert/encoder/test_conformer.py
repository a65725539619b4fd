"""The Conformer's convolution, its stack and its regularisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.encoder.conformer import CausalDepthwiseConv1d, Encoder, PointwiseConv1d
from w2vbert.encoder.layout import Layout
from w2vbert.packing import Packed

CPU = torch.device("cpu")


def small_encoder(**fields: object) -> Encoder:
    torch.manual_seed(0)
    return Encoder(
        Wav2Vec2BertConfig(
            **{
                "hidden_size": 16,
                "num_attention_heads": 2,
                "num_hidden_layers": 3,
                "intermediate_size": 8,
                "layerdrop": 0.0,
                "conformer_conv_dropout": 0.0,
                **fields,
            }
        )
    )


@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5), kernel=st.sampled_from([1, 3, 9]))
def test_causal_convolution_of_each_sequence(lengths: list[int], kernel: int) -> None:
    torch.manual_seed(sum(lengths))
    convolution = CausalDepthwiseConv1d(4, kernel)
    frames = torch.randn(sum(lengths), 4)
    expected = [
        F.conv1d(F.pad(sequence.T, (kernel - 1, 0)), convolution.weight, groups=4).T
        for sequence in frames.split(lengths)
    ]
    torch.testing.assert_close(convolution(frames, Layout(lengths, CPU)), torch.cat(expected))


@torch.no_grad()
def test_causal_convolution_does_not_look_ahead_or_across() -> None:
    convolution, layout = CausalDepthwiseConv1d(4, 5), Layout((6, 6), CPU)
    frames = torch.randn(12, 4)
    before = convolution(frames, layout)
    frames[5] += 1.0  # the last frame of the first sequence
    changed = (convolution(frames, layout) != before).any(1)
    assert changed.nonzero().flatten().tolist() == [5]


def test_pointwise_convolution_is_one() -> None:
    convolution = PointwiseConv1d(4, 6, kernel_size=1, bias=False)
    frames = torch.randn(7, 4)
    expected = F.conv1d(frames.T, convolution.weight).T
    torch.testing.assert_close(convolution(frames), expected)


def test_skipped_layers_hand_on_their_input() -> None:
    encoder = small_encoder(layerdrop=1.0).train()
    frames = torch.randn(9, 16)
    packed = Packed(frames, (5, 4))
    output = encoder(frames, Layout((5, 4), CPU), record=packed.with_frames, attentions=True)
    assert output.hidden_states is not None
    assert len(output.hidden_states) == 4
    assert all(torch.equal(state.frames, frames) for state in output.hidden_states)
    assert output.attentions == ()
    kept = encoder.eval()(frames, Layout((5, 4), CPU)).frames
    assert not torch.allclose(kept, frames), "layerdrop is for training"


def test_layerdrop_skips_as_often_as_told() -> None:
    encoder = small_encoder(layerdrop=0.3, num_hidden_layers=4)
    generator = torch.Generator().manual_seed(1)
    drawn = [encoder.draw_skipped_layers(generator) for _ in range(500)]
    for number in range(4):
        assert 0.25 < sum(number in layers for layers in drawn) / 500 < 0.35
    again = torch.Generator().manual_seed(1)
    assert [encoder.draw_skipped_layers(again) for _ in range(500)] == drawn
    assert small_encoder().draw_skipped_layers() == frozenset()


@given(skipped=st.sets(st.integers(0, 2)))
@torch.no_grad()
def test_layers_that_the_caller_skips(skipped: set[int]) -> None:
    """Those and no others, whatever the default generator would say, in training or not."""
    encoder = small_encoder(layerdrop=0.5).train()
    frames, layout = torch.randn(9, 16), Layout((5, 4), CPU)
    expected = frames
    for number, layer in enumerate(encoder.layers):
        expected = expected if number in skipped else layer(expected, layout)[0]
    for model in (encoder, encoder.eval()):
        torch.testing.assert_close(model(frames, layout, skipped_layers=skipped).frames, expected)


def test_gradient_checkpointing_changes_nothing() -> None:
    frames, layout = torch.randn(9, 16), Layout((5, 4), CPU)
    gradients = []
    for checkpointing in (False, True):
        encoder = small_encoder(hidden_dropout=0.2).train()
        encoder.gradient_checkpointing = checkpointing
        torch.manual_seed(2)
        encoder(frames, layout).frames.square().mean().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)
