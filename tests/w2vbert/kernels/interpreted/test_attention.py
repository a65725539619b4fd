"""The kernel against the product's attention through PyTorch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.w2vbert.kernels.interpreted.conftest import Both
from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.encoder.attention import SelfAttention
from w2vbert.encoder.layout import Layout
from w2vbert.kernels.attention import Tiles, attention

SMALL = Tiles(16, 16, 1, 1)
LEFT, RIGHT = 9, 3


def module(width: int, heads: int, *, left: int = LEFT, right: int = RIGHT) -> SelfAttention:
    torch.manual_seed(0)
    config = Wav2Vec2BertConfig(
        hidden_size=width,
        num_attention_heads=heads,
        left_max_position_embeddings=left,
        right_max_position_embeddings=right,
    )
    made = SelfAttention(config, width).eval()
    nn.init.normal_(made.distance_embedding.weight)
    return made


@torch.no_grad()
def by_kernel(made: SelfAttention, frames: Tensor, layout: Layout, tiles: Tiles | None) -> Tensor:
    linear = (made.linear_q, made.linear_k, made.linear_v)
    query, key, value = (one(frames).unflatten(-1, (made.num_heads, made.head_size)) for one in linear)
    band = made.scheme.band(made, query)
    assert band is not None
    joined = attention((query, key, value), band, layout, made.scaling, tiles)
    return made.linear_out(joined.flatten(1))


@torch.no_grad()
def by_torch(made: SelfAttention, frames: Tensor, layout: Layout) -> Tensor:
    return made(frames, layout)[0]


@pytest.mark.parametrize(
    ("lengths", "num_valid"),
    [
        ([37], None),
        ([1], None),
        ([1, 1, 1], None),
        ([16, 32, 48], None),
        ([40, 1, 17, 33], None),
        ([40, 2, 17], [39, 1, 17]),
        ([70], [5]),
    ],
)
def test_ragged_sequences(lengths: list[int], num_valid: list[int] | None) -> None:
    made = module(width=32, heads=2)
    layout = Layout(lengths, torch.device("cpu"), num_valid=num_valid)
    frames = torch.randn(sum(lengths), 32)
    given_, wanted = by_kernel(made, frames, layout, SMALL), by_torch(made, frames, layout)
    torch.testing.assert_close(given_, wanted, atol=2e-6, rtol=0)


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(
    lengths=st.lists(st.integers(1, 45), min_size=1, max_size=3),
    partial=st.booleans(),
    left=st.integers(0, 20),
    right=st.integers(0, 20),
)
def test_any_lengths_and_any_band(lengths: list[int], partial: bool, left: int, right: int) -> None:
    made = module(width=16, heads=1, left=left, right=right)
    num_valid = [max(1, length - 1) for length in lengths] if partial else None
    layout = Layout(lengths, torch.device("cpu"), num_valid=num_valid)
    frames = torch.randn(sum(lengths), 16)
    given_, wanted = by_kernel(made, frames, layout, SMALL), by_torch(made, frames, layout)
    torch.testing.assert_close(given_, wanted, atol=2e-6, rtol=0)


@pytest.mark.parametrize("head_size", [5, 24, 40])
def test_head_sizes_that_are_no_power_of_two(head_size: int) -> None:
    made = module(width=2 * head_size, heads=2)
    layout = Layout([21, 18], torch.device("cpu"))
    frames = torch.randn(39, 2 * head_size)
    given_, wanted = by_kernel(made, frames, layout, SMALL), by_torch(made, frames, layout)
    torch.testing.assert_close(given_, wanted, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-10)])
def test_half_precision(dtype: torch.dtype, tolerance: float) -> None:
    """Against float32 on the same rounded numbers: within two roundings of the largest value."""
    made = module(width=32, heads=2)
    layout = Layout([40, 17], torch.device("cpu"), num_valid=[39, 17])
    frames = torch.randn(57, 32).to(dtype)
    made.to(dtype)
    given_ = by_kernel(made, frames, layout, SMALL)
    wanted = by_torch(made.float(), frames.float(), layout)
    assert given_.dtype == dtype
    assert (given_.float() - wanted).abs().max() <= 2 * tolerance * wanted.abs().max()


def test_the_module_with_its_own_tiles(both: Both) -> None:
    """Longer than the published band of 64 + 8, and than the tiles of the type."""
    made = module(width=32, heads=2, left=64, right=8)
    layout = Layout([150, 20], torch.device("cpu"), num_valid=[149, 20])
    frames = torch.randn(170, 32)
    wanted, given_ = both(lambda: by_torch(made, frames, layout))
    torch.testing.assert_close(given_, wanted, atol=2e-6, rtol=0)
    assert not torch.equal(given_, wanted)  # else both were the same code


def test_nothing_is_read_beyond_a_sequence() -> None:
    made = module(width=32, heads=2)
    frames = torch.randn(57, 32)
    alone = by_kernel(made, frames[20:41], Layout([21], torch.device("cpu")), SMALL)
    frames[:20], frames[41:] = torch.nan, torch.inf
    among = by_kernel(made, frames, Layout([20, 21, 16], torch.device("cpu")), SMALL)
    assert torch.equal(among[20:41], alone)


def test_what_is_not_valid_is_not_looked_at() -> None:
    made = module(width=32, heads=2)
    frames = torch.randn(30, 32)
    layout = Layout([30], torch.device("cpu"), num_valid=[29])
    before = by_kernel(made, frames, layout, SMALL)
    frames[29] = torch.nan
    assert torch.equal(by_kernel(made, frames, layout, SMALL)[:29], before[:29])


def test_either_switch_for_tf32() -> None:
    """PyTorch refuses to tell of the one when the other was used."""
    made, layout = module(width=32, heads=2), Layout([20], torch.device("cpu"))
    frames = torch.randn(20, 32)
    wanted = by_kernel(made, frames, layout, SMALL)
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.testing.assert_close(by_kernel(made, frames, layout, SMALL), wanted)
    finally:
        torch.backends.cuda.matmul.fp32_precision = "ieee"
