"""Position schemes against their equations, written out."""

from __future__ import annotations

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import (
    Wav2Vec2BertRelPositionalEmbedding,
    Wav2Vec2BertRotaryPositionalEmbedding,
)

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.encoder.positions import rotate, rotation, shaw_bias, sinusoids, transformer_xl_bias
from w2vbert.model import Wav2Vec2BertModel

CPU = torch.device("cpu")


def blocks(queries: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, queries)) for start in range(0, queries, size)]


@given(
    queries=st.integers(1, 20),
    keys=st.integers(1, 20),
    left=st.integers(0, 6),
    right=st.integers(0, 6),
    size=st.integers(1, 8),
)
@settings(deadline=None)
def test_shaw(queries: int, keys: int, left: int, right: int, size: int) -> None:
    generator = torch.Generator().manual_seed(queries * keys)
    query = torch.randn(2, 3, queries, 4, generator=generator)
    embedding = torch.randn(left + right + 1, 4, generator=generator)
    bias = shaw_bias(query, embedding, left=left, right=right, keys=keys, scale=0.5)
    mine = torch.cat([bias(start, stop) for start, stop in blocks(queries, size)], dim=2)
    distance = torch.arange(keys) - torch.arange(queries)[:, None]
    expected = torch.einsum("bhqd,qkd->bhqk", query, embedding[distance.clamp(-left, right) + left]) * 0.5
    torch.testing.assert_close(mine, expected)


@given(length=st.integers(1, 20), cut=st.integers(0, 5), size=st.integers(1, 8), spare=st.integers(0, 3))
@settings(deadline=None)
def test_transformer_xl(length: int, cut: int, size: int, spare: int) -> None:
    keys = max(length - cut, 1)
    generator = torch.Generator().manual_seed(length)
    query = torch.randn(2, 3, length, 4, generator=generator)
    relative_key = torch.randn(3, 2 * (length + spare) - 1, 4, generator=generator)
    bias = transformer_xl_bias(query, relative_key, keys=keys, scale=0.5)
    mine = torch.cat([bias(start, stop) for start, stop in blocks(length, size)], dim=2)
    distance = torch.arange(length)[:, None] - torch.arange(keys)
    of_pair = relative_key[:, length + spare - 1 - distance]  # (heads, queries, keys, head_size)
    expected = torch.einsum("bhqd,hqkd->bhqk", query, of_pair) * 0.5
    torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("length", [1, 3, 4, 11, 25])
@pytest.mark.parametrize("max_source_positions", [4, 5000])
def test_sinusoids_are_the_published_ones(length: int, max_source_positions: int) -> None:
    """Whatever the published table was made for: it grows when it must, so the field limits nothing."""
    config = transformers.Wav2Vec2BertConfig(hidden_size=32, max_source_positions=max_source_positions)
    published = Wav2Vec2BertRelPositionalEmbedding(config)(torch.zeros(1, length, 32))[0]
    mine = sinusoids(length, 32, device=CPU, dtype=torch.float32)
    torch.testing.assert_close(mine, published, atol=1e-6, rtol=0)


def test_rotation_is_the_published_one() -> None:
    config = transformers.Wav2Vec2BertConfig(hidden_size=24, num_attention_heads=3, rotary_embedding_base=50)
    published = Wav2Vec2BertRotaryPositionalEmbedding(config)(torch.zeros(1, 9, 24))[:, :, 0]
    mine = rotation(torch.arange(9), 8, base=50, dtype=torch.float32)
    torch.testing.assert_close(mine, published)


def test_rotated_products_depend_on_distance_alone() -> None:
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    turn = rotation(torch.arange(20), 4, base=10000, dtype=torch.float32)
    queries, keys = (rotate(frame.expand(20, 8), turn) for frame in (query, key))
    products = (queries.view(20, 2, 4) * keys.view(20, 2, 4)[[5]]).sum(-1)
    shifted = (queries.view(20, 2, 4) * keys.view(20, 2, 4)[[8]]).sum(-1)
    torch.testing.assert_close(products[:17], shifted[3:], atol=1e-5, rtol=1e-5)


def test_rotations_do_not_go_stale() -> None:
    """The published cache knows lengths only: after a pass in float32 it fails in bfloat16. Ours runs."""
    sizes = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 8,
        "feature_projection_input_dim": 8,
        "position_embeddings_type": "rotary",
    }
    features = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0))
    peer = transformers.Wav2Vec2BertModel(transformers.Wav2Vec2BertConfig(**sizes)).eval()
    ours = Wav2Vec2BertModel(Wav2Vec2BertConfig(**sizes)).eval()
    with torch.no_grad():
        peer(features)
        with pytest.raises(RuntimeError, match="dtype"):
            peer.bfloat16()(features.bfloat16())
        exact = ours(features).last_hidden_state
        rounded = ours.bfloat16()(features.bfloat16()).last_hidden_state
        assert rounded.dtype == torch.bfloat16
        torch.testing.assert_close(rounded.float(), exact, atol=0.05, rtol=0.05)
        # Angles do not pass through bfloat16, which cannot tell frame 256 from 257.
        again = ours.float()(features).last_hidden_state
    torch.testing.assert_close(again, exact, atol=0.05, rtol=0.05)


def test_angles_are_exact_in_low_precision() -> None:
    turn = rotation(torch.tensor([256, 257]), 4, base=10000, dtype=torch.bfloat16)
    expected = torch.stack([torch.tensor([256.0, 257.0]).cos(), torch.tensor([256.0, 257.0]).sin()])
    torch.testing.assert_close(turn[:, :, 0, 0], expected.bfloat16())
