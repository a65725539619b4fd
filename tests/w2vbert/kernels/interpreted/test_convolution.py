"""The kernel against the product's convolution through PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.w2vbert.kernels.interpreted.conftest import Both
from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.encoder.conformer import ConvolutionModule
from w2vbert.encoder.layout import Layout
from w2vbert.kernels.convolution import Tiles, convolution


def module(width: int, taps: int) -> ConvolutionModule:
    torch.manual_seed(0)
    config = Wav2Vec2BertConfig(hidden_size=width, num_attention_heads=1, conv_depthwise_kernel_size=taps)
    made = ConvolutionModule(config).eval()
    for norm in (made.layer_norm, made.depthwise_layer_norm):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return made


@torch.no_grad()
def run(made: ConvolutionModule, frames: Tensor, layout: Layout) -> Tensor:
    return made(frames, layout)


@pytest.mark.parametrize("taps", [1, 5, 31])
@pytest.mark.parametrize(
    ("lengths", "num_valid"), [([5, 20, 1, 9], None), ([33], None), ([1], None), ([12, 7], [11, 7])]
)
def test_ragged_sequences(both: Both, taps: int, lengths: list[int], num_valid: list[int] | None) -> None:
    made = module(width=24, taps=taps)
    layout = Layout(lengths, torch.device("cpu"), num_valid=num_valid)
    frames = torch.randn(sum(lengths), 24)
    wanted, given = both(lambda: run(made, frames, layout))
    torch.testing.assert_close(given, wanted, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-10)])
def test_half_precision(dtype: torch.dtype, tolerance: float) -> None:
    made = module(width=24, taps=5).to(dtype)
    layout = Layout([12, 7], torch.device("cpu"))
    frames = torch.randn(19, 24).to(dtype)
    with torch.no_grad():
        norm, weight = made.depthwise_layer_norm, made.depthwise_conv.weight
        given = convolution(frames, weight, norm, layout, Tiles(8, 1))
        made.float()
        wanted = made.activation(norm(made.depthwise_conv(frames.float(), layout)))
    assert given.dtype == dtype
    assert (given.float() - wanted).abs().max() <= tolerance * wanted.abs().max()


def test_nothing_is_read_beyond_a_sequence() -> None:
    made = module(width=24, taps=5)
    conv, norm = made.depthwise_conv.weight.detach(), made.depthwise_layer_norm
    frames = torch.randn(30, 24)
    alone = convolution(frames[10:21], conv, norm, Layout([11], torch.device("cpu")))
    frames[:10], frames[21:] = torch.nan, torch.inf
    among = convolution(frames, conv, norm, Layout([10, 11, 9], torch.device("cpu")))
    assert torch.equal(among[10:21], alone)
