"""What the tests of our models in the peer's surroundings share: a model of each side with equal weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import w2vbert
from tests.parity.configs import DETERMINISTIC, Model, pair

SIZES: dict[str, Any] = {
    **DETERMINISTIC,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 24,
    "feature_projection_input_dim": 8,
    "conv_depthwise_kernel_size": 5,
    "vocab_size": 7,
    "ctc_loss_reduction": "mean",
}


def twins(model_class: type[Model], seed: int = 0, **fields: Any) -> tuple[Model, Any]:
    """Ours and the peer's, tiny, with the same weights and without dropout."""
    return pair(model_class, w2vbert.Wav2Vec2BertConfig(**{**SIZES, **fields}), seed)


def untrained_twins(model_class: type[Model], seed: int = 0, **fields: Any) -> tuple[Model, Any]:
    """As `twins`, with the weights that training starts from."""
    ours, peer = twins(model_class, seed, **fields)
    torch.manual_seed(seed)
    ours.init_weights()
    peer.load_state_dict(ours.state_dict())
    return ours, peer


def clips(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Clips of 20 to 40 frames with three to six labels each, as a dataset has them."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(20, 41, (count,), generator=generator).tolist()
    return [
        {
            "input_features": torch.randn(length, 8, generator=generator).numpy(),
            "labels": torch.randint(1, 7, (3 + length % 4,), generator=generator).tolist(),
            "length": length,
        }
        for length in lengths
    ]


def collate(batch: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Features, mask and labels, padded."""
    features = [torch.as_tensor(clip["input_features"]) for clip in batch]
    labels = [torch.as_tensor(clip["labels"]) for clip in batch]
    pad = nn.utils.rnn.pad_sequence
    return {
        "input_features": pad(features, batch_first=True),
        "attention_mask": pad([torch.ones(len(clip)).long() for clip in features], batch_first=True),
        "labels": pad(labels, batch_first=True, padding_value=-100),
    }
