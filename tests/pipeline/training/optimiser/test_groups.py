"""Which rate each weight learns at, which decay, and which stay."""

import pytest
import torch
from torch import nn

from pipeline.training.optimiser.groups import Rates, frozen_names, make_optimiser, set_rate

SHAPES = {
    "encoder.feature_projection.projection.weight": (4, 4),
    "encoder.masked_spec_embed": (4,),
    "encoder.encoder.layers.0.ffn1.intermediate_dense.weight": (4, 4),
    "encoder.encoder.layers.0.self_attn.distance_embedding.weight": (4, 4),
    "encoder.encoder.layers.1.final_layer_norm.weight": (4,),
    "encoder.adapter.layers.0.weight": (4, 4),
    "tasks.transcribe.lm_head.weight": (4, 4),
    "tasks.embed.layer_weights": (3,),
}
NAMED = {name: nn.Parameter(torch.zeros(shape)) for name, shape in SHAPES.items()}


def test_rates_and_decay() -> None:
    rates = Rates(usual=1e-3, new=1e-2, layer_decay=0.5, weight_decay=0.1)
    optimiser = make_optimiser(
        NAMED, 2, {"tasks.transcribe.lm_head.weight", "encoder.adapter.layers.0.weight"}, rates
    )
    found = {
        name: (group["peak"], group["weight_decay"])
        for group in optimiser.param_groups
        for parameter in group["params"]
        for name, held in NAMED.items()
        if held is parameter
    }
    expected = {
        "encoder.feature_projection.projection.weight": (2.5e-4, 0.1),
        "encoder.masked_spec_embed": (2.5e-4, 0.0),
        "encoder.encoder.layers.0.ffn1.intermediate_dense.weight": (5e-4, 0.1),
        "encoder.encoder.layers.0.self_attn.distance_embedding.weight": (5e-4, 0.0),
        "encoder.encoder.layers.1.final_layer_norm.weight": (1e-3, 0.0),
        "encoder.adapter.layers.0.weight": (1e-2, 0.1),
        "tasks.transcribe.lm_head.weight": (1e-2, 0.1),
        "tasks.embed.layer_weights": (2e-2, 0.0),
    }
    assert found.keys() == expected.keys()
    for name, (rate, decay) in expected.items():
        assert found[name] == (pytest.approx(rate), decay), name
    set_rate(optimiser, 0.5)
    assert all(group["lr"] == 0.5 * group["peak"] for group in optimiser.param_groups)


def test_what_stays() -> None:
    names = list(NAMED)
    assert frozen_names(names, [], 0) == set()
    assert frozen_names(names, ["feature_projection"], 0) == {names[0]}
    assert frozen_names(names, [], 1) == {names[0], names[2], names[3]}
    assert frozen_names(names, ["encoder"], 0) == {name for name in names if name.startswith("encoder.")}
