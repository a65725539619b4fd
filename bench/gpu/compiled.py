"""Layers compiled by PyTorch around attention and convolution, whose kernels stay as they are."""

from __future__ import annotations

from typing import Any

import torch

from w2vbert.model import Wav2Vec2BertModel


def use_compiled(model: Wav2Vec2BertModel, *, compiler: str = "inductor") -> Wav2Vec2BertModel:
    """Changes a model: norms, feed-forwards and residuals are fused, one graph for all lengths."""
    layers: Any = model.encoder.layers
    for layer in layers:
        for part in (layer.self_attn, layer.conv_module):
            part.forward = torch.compiler.disable(part.forward)
        layer.compile(backend=compiler, dynamic=True)
    return model
