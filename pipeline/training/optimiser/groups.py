"""Parameter groups: which rate each weight learns at, and whether it decays; and which stay as they are."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_LAYER = re.compile(r"^encoder\.encoder\.layers\.(\d+)\.")
_HEAD = re.compile(r"^heads\.(\w+)\.")
# Weights of a softmax over layers start equal, and gradients of so few numbers move them too slowly.
_LAYER_WEIGHTS_RATE = 20.0


@dataclass(frozen=True)
class Rates:
    """How fast each part of a model learns.

    Attributes:
        encoder: peak learning rate of the encoder's last layer, and of heads that came with the checkpoint.
        head: that of new heads.
        layer_decay: what the rate falls by from each encoder layer to the one before it (Clark et al. 2020,
            arXiv:2003.10555).
        weight_decay: of matrices; norms, biases and embeddings have none.
        betas: of Adam.
    """

    encoder: float
    head: float
    layer_decay: float = 1.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)


def make_optimiser(
    named: Mapping[str, nn.Parameter], layers: int, new_heads: Collection[str], rates: Rates
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) over a model's weights.

    Args:
        named: parameters by name: `encoder.…` and `heads.<task>.…`.
        layers: of the encoder.
        new_heads: tasks whose heads start at random.

    Returns:
        Each group has its peak rate as `peak`.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        rate = _rate(name, layers, new_heads, rates)
        decay = rates.weight_decay if _decays(name, parameter) else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    listed: list[dict[str, Any]] = [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    return torch.optim.AdamW(listed, betas=rates.betas, eps=1e-8)


def set_rate(optimiser: torch.optim.Optimizer, scale: float) -> None:
    """Every group learns at this share of its peak rate."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * scale


def frozen_names(names: Collection[str], freeze: Collection[str], first_layers: int) -> set[str]:
    """The weights that stay as they are.

    Args:
        freeze: any of "feature_projection" and "encoder".
        first_layers: of the encoder, the feature projection with them.
    """

    def stays(name: str) -> bool:
        if "encoder" in freeze and name.startswith("encoder."):
            return True
        if ("feature_projection" in freeze or first_layers) and name.startswith("encoder.feature_projection"):
            return True
        layer = _LAYER.match(name)
        return layer is not None and int(layer[1]) < first_layers

    return {name for name in names if stays(name)}


def _rate(name: str, layers: int, new_heads: Collection[str], rates: Rates) -> float:
    if (head := _HEAD.match(name)) is not None:
        rate = rates.head if head[1] in new_heads else rates.encoder
        return rate * _LAYER_WEIGHTS_RATE if name.endswith(".layer_weights") else rate
    layer = _LAYER.match(name)
    # The feature projection comes before the first layer, an adapter after the last.
    below = name.startswith(("encoder.feature_projection", "encoder.masked_spec_embed"))
    depth = int(layer[1]) + 1 if layer else 0 if below else layers
    return rates.encoder * rates.layer_decay ** (layers - depth)


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.dim() > 1 and "embedding" not in name
