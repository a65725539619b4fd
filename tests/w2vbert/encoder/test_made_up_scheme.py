"""A position scheme defined and registered here alone runs, learns and travels like a published one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from w2vbert.config import ConfigError, Wav2Vec2BertConfig
from w2vbert.encoder.attention import SelfAttention
from w2vbert.encoder.layout import Layout
from w2vbert.encoder.positions import (
    POSITION_SCHEMES,
    BlockBias,
    PositionScheme,
    register_position_scheme,
)
from w2vbert.model import Wav2Vec2BertModel
from w2vbert.packing import Packed
from w2vbert.pretrained.digest import backbone_digest

NAME = "linear_distance"


class LinearDistance(PositionScheme):
    """Scores fall with the distance, at a learned slope for each head (as in Press et al. 2022, "ALiBi")."""

    extra_fields = ("first_slope",)

    @classmethod
    def check(cls, config: Wav2Vec2BertConfig) -> None:
        if config.num_attention_heads > 4:
            raise ValueError("has slopes for 4 heads")

    def add_parameters(self, attention: SelfAttention) -> None:
        attention.slopes = nn.Parameter(torch.empty(attention.num_heads))

    def init_parameters(self, attention: SelfAttention) -> None:
        first = getattr(self.config, "first_slope", 0.5)
        with torch.no_grad():
            attention.slopes.copy_(first ** torch.arange(1, attention.num_heads + 1))

    def shared(self, frames: Tensor, layout: Layout) -> Tensor:
        places = torch.arange(max(layout.lengths), device=frames.device)
        return (places.unsqueeze(1) - places).abs().to(frames.dtype)

    def score(
        self, attention: SelfAttention, query: Tensor, keys: int, of_layer: Tensor | None
    ) -> tuple[Tensor, BlockBias | None]:
        assert of_layer is not None
        slopes = attention.slopes[None, :, None, None]

        def bias(start: int, stop: int) -> Tensor:
            return (-slopes * of_layer[start:stop, :keys]).expand(len(query), -1, -1, -1)

        return query, bias


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_position_scheme(NAME)(LinearDistance)
    yield
    del POSITION_SCHEMES[NAME]


def config(**fields: object) -> Wav2Vec2BertConfig:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 8}
    given = {"feature_projection_input_dim": 8, "position_embeddings_type": NAME, "layerdrop": 0.0}
    return Wav2Vec2BertConfig(**{**sizes, **given, **fields})


def clips() -> Packed:
    generator = torch.Generator().manual_seed(0)
    return Packed.from_sequences([torch.randn(length, 8, generator=generator) for length in (9, 4, 9)])


def test_it_runs_and_knows_where_frames_are() -> None:
    model = Wav2Vec2BertModel(config()).eval()
    with torch.no_grad():
        together = model.encode(clips(), output_attentions=True)
        for clip, states in zip(clips().split(), together.last_hidden_state.split(), strict=True):
            alone = model(clip[None]).last_hidden_state[0]
            torch.testing.assert_close(states, alone, atol=1e-5, rtol=0)
        for layer in model.encoder.layers:
            layer.self_attn.slopes.fill_(100.0)
        weights = model.encode(clips(), output_attentions=True).attentions
    assert weights is not None
    torch.testing.assert_close(weights[0][0, 0], torch.eye(9), msg="a steep slope leaves each frame itself")


def test_it_learns_and_travels(tmp_path: Path) -> None:
    model = Wav2Vec2BertModel(config(first_slope=0.25)).train()
    name = "encoder.layers.1.self_attn.slopes"
    before = model.state_dict()[name].clone()
    assert before.tolist() == [0.25, 0.0625]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.encode(clips()).last_hidden_state.frames[:, 0].square().mean().backward()
    optimizer.step()
    assert not torch.equal(model.state_dict()[name], before)

    model.save_pretrained(tmp_path)
    loaded = Wav2Vec2BertModel.from_pretrained(tmp_path)
    assert all(torch.equal(loaded.state_dict()[key], tensor) for key, tensor in model.state_dict().items())
    with torch.no_grad():
        expected = model.eval().encode(clips()).last_hidden_state.frames
        assert torch.equal(loaded.encode(clips()).last_hidden_state.frames, expected)
    assert backbone_digest(loaded) == backbone_digest(model)
    model.config.first_slope = 0.5
    assert backbone_digest(loaded) != backbone_digest(model), "the scheme says that it reads the key"


def test_its_name_and_its_check() -> None:
    with pytest.raises(ConfigError, match="position_embeddings_type: has slopes for 4 heads"):
        config(num_attention_heads=8)
    with pytest.raises(ConfigError, match=r"'linear_distance'.*is 'unheard of'"):
        config(position_embeddings_type="unheard of")
    with pytest.raises(ValueError, match="already"):
        register_position_scheme(NAME)(PositionScheme)
