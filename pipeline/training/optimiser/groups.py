"""Parameter groups: which rate each weight learns at, and whether it decays; and which stay as they are."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_LAYER = re.compile(r"^encoder\.encoder\.layers\.(\d+)\.")
# Weights of a softmax over layers start equal, and gradients of so few numbers move them too slowly.
_LAYER_WEIGHTS_RATE = 20.0


@dataclass(frozen=True)
class Rates:
    """How fast each part of a model learns.

    Attributes:
        usual: peak learning rate of heads, and of the encoder's last layer.
        new: that of weights that start at random beside others that do not.
        layer_decay: what the rate falls by from each encoder layer to the one before it (Clark et al. 2020,
            arXiv:2003.10555).
        weight_decay: of matrices; norms, biases and embeddings have none.
        betas: of Adam.
    """

    usual: float
    new: float
    layer_decay: float = 1.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)


def make_optimiser(
    named: Mapping[str, nn.Parameter], layers: int, new: Collection[str], rates: Rates
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) over a model's weights.

    Args:
        named: parameters by name; those of the encoder begin with `encoder.`.
        layers: of the encoder.
        new: names of those that start at random beside others that do not.

    Returns:
        Each group has its peak rate as `peak`.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        rate = _rate(name, layers, new, rates)
        decay = rates.weight_decay if _decays(name, parameter) else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    listed: list[dict[str, Any]] = [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    return torch.optim.AdamW(listed, betas=rates.betas, eps=1e-8)


def set_rate(optimiser: torch.optim.Optimizer, scale: float) -> None:
    """Sets the rate of every group to this share of its peak."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * scale


def frozen_names(names: Collection[str], freeze: Collection[str], first_layers: int) -> set[str]:
    """Names of the weights that are not trained.

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


def _rate(name: str, layers: int, new: Collection[str], rates: Rates) -> float:
    if name in new:
        rate = rates.new
    elif name.startswith("encoder."):
        rate = rates.usual * rates.layer_decay ** (layers - _depth(name, layers))
    else:
        rate = rates.usual
    return rate * _LAYER_WEIGHTS_RATE if name.endswith(".layer_weights") else rate


def _depth(name: str, layers: int) -> int:
    """The feature projection comes before the first layer, an adapter after the last."""
    layer = _LAYER.match(name)
    below = name.startswith(("encoder.feature_projection", "encoder.masked_spec_embed"))
    return int(layer[1]) + 1 if layer else 0 if below else layers


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.dim() > 1 and "embedding" not in name
