"""The Conformer adapter: strided blocks that shorten the frame sequence after the encoder.

Source: the published Wav2Vec2-BERT and, behind it, M-adapter (Zhao et al. 2022, arXiv:2207.00952).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from w2vbert.config import Wav2Vec2BertConfig
from w2vbert.encoder.attention import SelfAttention
from w2vbert.encoder.conformer import FeedForward
from w2vbert.encoder.layout import Layout

Length = TypeVar("Length", int, Tensor)


class ClipTooShortError(ValueError):
    """A clip has too few frames for the adapter's convolutions."""


def adapter_lengths(config: Wav2Vec2BertConfig, lengths: Sequence[int]) -> tuple[int, ...]:
    """Frames that one adapter layer makes of each sequence: what its convolution gives.

    The published code convolves with padding `stride // 2` but derives its masks from padding `kernel //
    2`; the two differ unless the kernel is 3 and the stride 2. The convolution decides here.

    Raises:
        ClipTooShortError: a sequence is shorter than what the convolution spans.
    """
    kernel, stride = config.adapter_kernel_size, config.adapter_stride
    for index, length in enumerate(lengths):
        if length < kernel - 2 * (stride // 2):
            raise ClipTooShortError(
                f"clip {index} has {length} frames where the adapter (adapter_kernel_size={kernel}, "
                f"adapter_stride={stride}) needs {kernel - 2 * (stride // 2)}"
            )
    return tuple(shortened(config, length) for length in lengths)


def shortened(config: Wav2Vec2BertConfig, length: Length) -> Length:
    """Frames that one adapter layer makes of so many: an integer, or a tensor of them."""
    kernel, stride = config.adapter_kernel_size, config.adapter_stride
    return (length + 2 * (stride // 2) - kernel) // stride + 1


class StridedConv1d(nn.Conv1d):
    """A convolution with stride within each packed sequence; past its ends a sequence sees zeros."""

    def forward(self, frames: Tensor, windows: Tensor) -> Tensor:  # type: ignore[override]
        """(total, in_channels), (outputs, kernel) from `Layout.windows` -> (outputs, out_channels)."""
        framed = torch.cat((frames, frames.new_zeros(1, frames.shape[1])))
        return F.linear(framed[windows].flatten(1), self.weight.transpose(1, 2).flatten(1), self.bias)


class AdapterLayer(nn.Module):
    """Strided, gated convolutions on the residual and before self-attention, then a feed-forward block."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        width, eps = config.encoded_size, config.layer_norm_eps
        self.config = config
        self.padding = config.adapter_stride // 2

        self.residual_layer_norm = nn.LayerNorm(width, eps=eps)
        self.residual_conv = self._convolution(width)
        self.self_attn_layer_norm = nn.LayerNorm(width, eps=eps)
        self.self_attn_conv = self._convolution(width)
        self.self_attn = SelfAttention(config, width, positions=False)
        self.self_attn_dropout = nn.Dropout(config.conformer_conv_dropout)
        self.ffn_layer_norm = nn.LayerNorm(width, eps=eps)
        self.ffn = FeedForward(config, activation=config.adapter_act, width=width)

    def _convolution(self, width: int) -> StridedConv1d:
        return StridedConv1d(
            width,
            2 * width,
            self.config.adapter_kernel_size,
            stride=self.config.adapter_stride,
            padding=self.padding,
        )

    def forward(self, frames: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """(total, width) -> (shorter total, width) and where its sequences lie."""
        shorter = self._shorten(layout)
        windows = layout.windows(
            shorter.lengths,
            kernel=self.config.adapter_kernel_size,
            stride=self.config.adapter_stride,
            padding=self.padding,
        )
        residual = F.glu(self.residual_conv(self.residual_layer_norm(frames), windows), dim=-1)
        frames = F.glu(self.self_attn_conv(self.self_attn_layer_norm(frames), windows), dim=-1)
        attended, _ = self.self_attn(frames, shorter)
        frames = self.self_attn_dropout(attended) + residual
        return frames + self.ffn(self.ffn_layer_norm(frames)), shorter

    def _shorten(self, layout: Layout) -> Layout:
        lengths = adapter_lengths(self.config, layout.lengths)
        if layout.invalid is None:
            return Layout(lengths, layout.device)
        # The convolution reads a partly filled frame as the published one does, and which of its own frames
        # are valid follows the published mask. Of a sequence without such a frame, all are.
        kernel, stride = self.config.adapter_kernel_size, self.config.adapter_stride
        num_valid = [
            length if seen == before else min(length, (seen + 2 * (kernel // 2) - kernel) // stride + 1)
            for length, seen, before in zip(lengths, layout.num_valid, layout.lengths, strict=True)
        ]
        return Layout(lengths, layout.device, num_valid=num_valid)


class Adapter(nn.Module):
    """The stack of adapter layers, after a projection if the width changes.

    No layer is ever skipped in training: each changes the number of frames, which labels and lengths rely on.
    """

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        width = config.encoded_size
        self.proj: nn.Linear | None = None
        self.proj_layer_norm: nn.LayerNorm | None = None
        if width != config.hidden_size:
            self.proj = nn.Linear(config.hidden_size, width)
            self.proj_layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(AdapterLayer(config) for _ in range(config.num_adapter_layers))

    def forward(self, frames: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """(total, hidden_size) -> (shorter total, output_hidden_size) and where its sequences lie."""
        if self.proj is not None and self.proj_layer_norm is not None:
            frames = self.proj_layer_norm(self.proj(frames))
        for layer in self.layers:
            frames, layout = layer(frames, layout)
        return frames, layout
