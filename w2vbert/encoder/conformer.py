"""The Conformer encoder: feed-forward, self-attention, causal convolution, feed-forward.

Source: Gulati et al. 2020 (arXiv:2005.08100), with the causal depthwise convolution of w2v-BERT 2.0 (Seamless
Communication 2023, arXiv:2312.05187). Module names are the published state-dict keys.

Shapes: all frames are packed, (total, width); a `Layout` says where sequences lie.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.encoder.activations import ACTIVATIONS
from w2vbert.encoder.attention import SelfAttention
from w2vbert.encoder.layout import Layout
from w2vbert.encoder.positions import position_scheme
from w2vbert.kernels import triton_runs
from w2vbert.packing import Packed


class FeatureProjection(nn.Module):
    """Normalise filterbank features and project them to the model's width."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.feature_projection_input_dim, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.feature_projection_input_dim, config.hidden_size)
        self.dropout = nn.Dropout(config.feat_proj_dropout)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(total, features) -> (total, hidden_size) and the normalised features.

        Raises:
            TypeError: the features are of another type than the weights, outside of autocast.
        """
        dtype = self.layer_norm.weight.dtype
        if features.dtype != dtype and not torch.is_autocast_enabled(features.device.type):
            raise TypeError(
                f"input_features are {features.dtype} and the weights {dtype}: give "
                f"input_features.to(model.dtype), or load the model with dtype={features.dtype}"
            )
        normalised = self.layer_norm(features)
        return self.dropout(self.projection(normalised)), normalised


class FeedForward(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, config: Wav2Vec2BertConfig, *, activation: str, width: int) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(width, config.intermediate_size)
        self.intermediate_act_fn = ACTIVATIONS[activation]
        self.intermediate_dropout = nn.Dropout(config.activation_dropout)
        self.output_dense = nn.Linear(config.intermediate_size, width)
        self.output_dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, frames: Tensor) -> Tensor:
        wide = self.intermediate_dense(frames)
        if not (self.training and wide.requires_grad):
            return self._narrowed(wide)
        # Of the widest tensors of a layer one is kept: its activation costs less to compute again.
        output: Tensor = checkpoint(self._narrowed, wide, use_reentrant=False)
        return output

    def _narrowed(self, wide: Tensor) -> Tensor:
        output: Tensor = self.output_dropout(
            self.output_dense(self.intermediate_dropout(self.intermediate_act_fn(wide)))
        )
        return output


class PointwiseConv1d(nn.Conv1d):
    """A convolution of kernel 1 (named and stored as such), run as the matrix product that it is."""

    def forward(self, frames: Tensor) -> Tensor:
        return F.linear(frames, self.weight.squeeze(-1))


class CausalDepthwiseConv1d(nn.Conv1d):
    """Each channel by itself; a frame sees itself and the `kernel_size - 1` before it in its own sequence."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(channels, channels, kernel_size, groups=channels, bias=False)

    def forward(self, frames: Tensor, layout: Layout) -> Tensor:  # type: ignore[override]
        past = self.kernel_size[0] - 1
        if len(layout.lengths) == 1 and layout.places is None:
            return self._convolve(F.pad(frames, (0, 0, past, 0)))
        # One convolution over all sequences, each preceded by the silence that it would see alone.
        spaced, places = layout.spaced(frames, past)
        return self._convolve(spaced)[places - past]

    def _convolve(self, frames: Tensor) -> Tensor:
        return super().forward(frames.T.unsqueeze(0)).squeeze(0).T


class ConvolutionModule(nn.Module):
    """Gated pointwise convolution, causal depthwise convolution, norm, activation, pointwise convolution."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.pointwise_conv1 = PointwiseConv1d(width, 2 * width, kernel_size=1, bias=False)
        self.depthwise_conv = CausalDepthwiseConv1d(width, config.conv_depthwise_kernel_size)
        self.depthwise_layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.pointwise_conv2 = PointwiseConv1d(width, width, kernel_size=1, bias=False)
        self.dropout = nn.Dropout(config.conformer_conv_dropout)

    def forward(self, frames: Tensor, layout: Layout) -> Tensor:
        frames = layout.zero_invalid(self.layer_norm(frames))
        frames = self._convolve(F.glu(self.pointwise_conv1(frames), dim=-1), layout)
        output: Tensor = self.dropout(self.pointwise_conv2(frames))
        return output

    def _convolve(self, frames: Tensor, layout: Layout) -> Tensor:
        if self._has_kernel(frames, layout):
            from w2vbert.kernels.convolution import WIDEST, convolution

            if frames.shape[1] <= WIDEST:
                return convolution(frames, self.depthwise_conv.weight, self.depthwise_layer_norm, layout)
        convolved: Tensor = self.activation(self.depthwise_layer_norm(self.depthwise_conv(frames, layout)))
        return convolved

    def _has_kernel(self, frames: Tensor, layout: Layout) -> bool:
        """Whether one kernel stands for the two modules: they are as they were made, and nobody listens."""
        if layout.places is not None or self.activation is not F.silu:
            return False
        conv, norm = self.depthwise_conv, self.depthwise_layer_norm
        plain = type(conv) is CausalDepthwiseConv1d and type(norm) is nn.LayerNorm
        if not plain or any(part._forward_hooks or part._forward_pre_hooks for part in (conv, norm)):
            return False
        return triton_runs(frames, conv.weight, norm.weight, norm.bias)


class EncoderLayer(nn.Module):
    """One Conformer block."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.ffn1_layer_norm = nn.LayerNorm(width, eps=eps)
        self.ffn1 = FeedForward(config, activation=config.hidden_act, width=width)
        self.self_attn_layer_norm = nn.LayerNorm(width, eps=eps)
        self.self_attn = SelfAttention(config, width)
        self.self_attn_dropout = nn.Dropout(config.attention_dropout)
        self.conv_module = ConvolutionModule(config)
        self.ffn2_layer_norm = nn.LayerNorm(width, eps=eps)
        self.ffn2 = FeedForward(config, activation=config.hidden_act, width=width)
        self.final_layer_norm = nn.LayerNorm(width, eps=eps)

    def forward(
        self, frames: Tensor, layout: Layout, positions: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """(total, width) -> (total, width), and the attention weights if asked for."""
        frames = frames.add(self.ffn1(self.ffn1_layer_norm(frames)), alpha=0.5)
        attended, weights = self.self_attn(
            self.self_attn_layer_norm(frames), layout, positions, need_weights=need_weights
        )
        frames = frames + self.self_attn_dropout(attended)
        frames = frames + self.conv_module(frames, layout)
        frames = frames.add(self.ffn2(self.ffn2_layer_norm(frames)), alpha=0.5)
        return self.final_layer_norm(frames), weights


@dataclass(frozen=True)
class EncoderOutput:
    """Frames after the last layer, and what was recorded on the way (`None` if not asked for).

    `hidden_states` has the input of the first layer and the output of each; a layer that layerdrop skipped
    hands on its input. `attentions` leaves skipped layers out.
    """

    frames: Tensor
    hidden_states: tuple[Packed, ...] | None
    attentions: tuple[Tensor, ...] | None


@dataclass(frozen=True)
class Checkpointing:
    """How layers recompute their activations in the backward pass instead of keeping them.

    Attributes:
        every_n_layers: 1: all layers; n: the first, and each nth after it.
        offload: keep what a layer starts from on the CPU.
        arguments: of `torch.utils.checkpoint.checkpoint`.
    """

    every_n_layers: int = 1
    offload: bool = False
    arguments: Mapping[str, Any] = field(default_factory=lambda: {"use_reentrant": False})

    def of_layer(self, number: int, layer: nn.Module) -> Callable[..., Any]:
        """What to call instead of a layer."""
        if number % self.every_n_layers:
            return layer
        if not self.offload:
            return partial(checkpoint, layer, **self.arguments)

        def offloaded(*inputs: Any) -> Any:
            with torch.autograd.graph.save_on_cpu():
                return checkpoint(layer, *inputs, **self.arguments)

        return offloaded


class Encoder(nn.Module):
    """The stack of Conformer blocks."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        self.config = config
        self.scheme = position_scheme(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.gradient_checkpointing = False
        self.checkpointing = Checkpointing()

    def forward(
        self,
        frames: Tensor,
        layout: Layout,
        *,
        record: Callable[[Tensor], Packed] | None = None,
        attentions: bool = False,
        skipped_layers: Collection[int] | None = None,
    ) -> EncoderOutput:
        """(total, hidden_size) -> the same.

        Args:
            record: makes a hidden state of the frames that each layer reads, and of the last; the pass goes
                on with the frames of what it made. `None`: no hidden states.
            attentions: whether to record the weights.
            skipped_layers: numbers of the layers to leave out; in training drawn when omitted.
        """
        if skipped_layers is None:
            skipped_layers = self.draw_skipped_layers() if self.training else ()
        frames = self.dropout(layout.zero_invalid(frames))
        positions = self.scheme.shared(frames, layout)
        states: list[Packed] = []
        weights: list[Tensor] = []
        if record is not None:
            states.append(record(frames))
            frames = states[-1].frames
        for number, layer in enumerate(self.layers):
            if number not in skipped_layers:
                run: Callable[..., tuple[Tensor, Tensor | None]] = layer
                if self.gradient_checkpointing and self.training:
                    run = self.checkpointing.of_layer(number, layer)
                frames, weight = run(frames, layout, positions, attentions)
                if weight is not None:
                    weights.append(weight)
            if record is not None:
                states.append(record(frames))
                frames = states[-1].frames
        return EncoderOutput(
            frames, None if record is None else tuple(states), tuple(weights) if attentions else None
        )

    def draw_skipped_layers(self, generator: torch.Generator | None = None) -> frozenset[int]:
        """The layers that a training pass leaves out, each with the probability `layerdrop`.

        LayerDrop, Fan et al. 2019 (arXiv:1909.11556). Processes that train one model together must leave out
        the same ones: give them generators of one seed.

        Args:
            generator: on the CPU; torch's default one when omitted.
        """
        layerdrop = self.config.layerdrop
        if layerdrop == 0.0:
            return frozenset()
        draws = torch.rand(len(self.layers), generator=generator).tolist()
        return frozenset(number for number, draw in enumerate(draws) if draw < layerdrop)
