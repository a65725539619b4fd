"""What parity tests share: random configurations, peers with random weights, batches to feed both sides."""

from __future__ import annotations

import random
from typing import Any, TypeVar

import torch
import transformers
from torch import Tensor, nn

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.pretrained.model import Wav2Vec2BertPreTrainedModel

POSITIONS = ("relative_key", "relative", "rotary", None)

Model = TypeVar("Model", bound=Wav2Vec2BertPreTrainedModel)

# Everything random is off unless a test turns it on: two implementations do not draw the same numbers.
DETERMINISTIC: dict[str, Any] = {
    "hidden_dropout": 0.0,
    "activation_dropout": 0.0,
    "attention_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.0,
    "conformer_conv_dropout": 0.0,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
}


def random_config(seed: int, **fixed: Any) -> Wav2Vec2BertConfig:
    """A small configuration of odd sizes without randomness; `fixed` fields are as given."""
    rng = random.Random(seed)
    heads, head_size = rng.choice([(1, 16), (2, 10), (3, 8), (4, 6), (5, 4)])
    add_adapter = bool(fixed.get("add_adapter", rng.random() < 0.4))
    hidden_size = heads * head_size
    drawn: dict[str, Any] = {
        **DETERMINISTIC,
        "hidden_size": hidden_size,
        "num_hidden_layers": rng.choice([1, 2, 3]),
        "num_attention_heads": heads,
        "intermediate_size": rng.choice([7, 16, 33]),
        "feature_projection_input_dim": rng.choice([5, 8, 20]),
        "hidden_act": rng.choice(["gelu", "relu", "silu", "swish", "gelu_new"]),
        "layer_norm_eps": rng.choice([1e-5, 1e-3]),
        "position_embeddings_type": rng.choice(POSITIONS),
        "rotary_embedding_base": rng.choice([100, 10000]),
        "max_source_positions": rng.choice([3, 50]),
        "left_max_position_embeddings": rng.choice([0, 1, 5, 64]),
        "right_max_position_embeddings": rng.choice([0, 2, 8]),
        "conv_depthwise_kernel_size": rng.choice([1, 3, 7, 31]),
        "add_adapter": add_adapter,
        "num_adapter_layers": rng.choice([1, 2]),
        "adapter_act": rng.choice(["relu", "gelu", "swish"]),
        "use_intermediate_ffn_before_adapter": add_adapter and rng.random() < 0.5,
        "output_hidden_size": rng.choice([hidden_size, 4 * heads]) if add_adapter else None,
    }
    return Wav2Vec2BertConfig(**{**drawn, **fixed})


def peer_config(config: Wav2Vec2BertConfig) -> transformers.Wav2Vec2BertConfig:
    """The peer's configuration of the same content."""
    return transformers.Wav2Vec2BertConfig.from_dict(config.to_dict())


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> None:
    """Weights at which every part of the model matters: none zero, none the identity."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.normal_(std=0.2, generator=generator)
            if "layer_norm" in name and name.endswith("weight"):
                parameter.add_(1.0)


def pair(
    model_class: type[Model], config: Wav2Vec2BertConfig, seed: int = 0, **kwargs: Any
) -> tuple[Model, Any]:
    """Our model and the peer's of the same name, with the same random weights, in evaluation mode.

    Weights travel through a strict state dict, so their names and shapes are checked on the way.
    """
    peer = getattr(transformers, model_class.__name__)(peer_config(config), **kwargs).eval()
    randomise(peer, seed)
    ours = model_class(config, **kwargs).eval()
    ours.load_state_dict(peer.state_dict(), strict=True)
    return ours, peer


def batch(
    config: Wav2Vec2BertConfig, lengths: list[int], seed: int = 0, extra: int = 0
) -> tuple[Tensor, Tensor]:
    """Random padded features and their mask; rows are `extra` frames wider than the longest clip.

    Padding holds numbers too, so that reading it shows.
    """
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths) + extra
    features = torch.randn(len(lengths), width, config.feature_projection_input_dim, generator=generator)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    return features, mask.long()


def valid(padded: Tensor, lengths: list[int] | tuple[int, ...]) -> Tensor:
    """The frames of a padded batch that are no padding: (sum of lengths, ...)."""
    return torch.cat([row[:length] for row, length in zip(padded, lengths, strict=True)])


def assert_gradients_match(ours: nn.Module, peer: nn.Module, tolerance: float = 1e-3) -> None:
    """Every parameter's gradient within `tolerance` of the peer's, relative to its largest entry."""
    theirs = dict(peer.named_parameters())
    largest = max(p.grad.abs().max() for p in theirs.values() if p.grad is not None)
    assert largest > 0, "nothing was differentiated"
    for name, parameter in ours.named_parameters():
        expected = theirs[name].grad
        if expected is None or parameter.grad is None:
            missing = parameter.grad if expected is None else expected
            assert missing is None or missing.abs().max() == 0, name
            continue
        # A gradient that vanishes by symmetry (a key bias under softmax) is noise on both sides.
        scale = max(expected.abs().max().item(), 1e-4 * largest.item())
        error = (parameter.grad - expected).abs().max().item() / scale
        assert error < tolerance, f"{name}: gradient off by {error:.1e} of its size"
