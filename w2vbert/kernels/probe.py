"""The kernels against PyTorch's operators on a small pack, before a device is trusted with them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from triton.runtime.interpreter import InterpretedFunction

from w2vbert.encoder.layout import Layout
from w2vbert.encoder.positions import Band
from w2vbert.kernels import attention, convolution

INTERPRETED = isinstance(attention._attend, InterpretedFunction)
_LENGTHS, _VALID = (70, 1, 9), (69, 1, 9)
_LEFT, _RIGHT, _HEADS, _HEAD, _TAPS = 4, 3, 2, 16, 5
_TOLERANCE = 0.01  # of the largest value: TF32 stays far below it, a kernel that went wrong does not


@torch.no_grad()
def run(device: torch.device) -> None:
    """Raises whatever compiling or running raises, and `RuntimeError` where a kernel gives other numbers."""
    layout = Layout(_LENGTHS, device, num_valid=_VALID)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    projected = [draw(layout.total, _HEADS, _HEAD) for _ in range(3)]
    band = Band(draw(layout.total, _HEADS, _LEFT + _RIGHT + 1), _LEFT, _RIGHT)
    scale = _HEAD**-0.5
    _compare(
        "attention", attention.attention(projected, band, layout, scale), _attended(projected, band, scale)
    )
    width = _HEADS * _HEAD
    frames, weight, norm = draw(layout.total, width), draw(width, 1, _TAPS), nn.LayerNorm(width).to(device)
    convolved = [
        F.conv1d(F.pad(sequence.T, (_TAPS - 1, 0)), weight, groups=width).T
        for sequence in frames.split(_LENGTHS)
    ]
    expected = F.silu(norm(torch.cat(convolved)))
    _compare("convolution", convolution.convolution(frames, weight, norm, layout), expected)


def _attended(projected: list[Tensor], band: Band, scale: float) -> Tensor:
    outputs = []
    parts = zip(*(part.split(_LENGTHS) for part in (*projected, band.products)), _VALID, strict=True)
    for query, key, value, products, valid in parts:
        q, k, v, p = (part.transpose(0, 1) for part in (query, key, value, products))
        places = torch.arange(len(query), device=query.device)
        distances = (places - places[:, None]).clamp(-_LEFT, _RIGHT) + _LEFT
        scores = scale * (q @ k.transpose(1, 2) + p.gather(2, distances.expand(_HEADS, -1, -1)))
        outputs.append((scores[..., :valid].softmax(-1) @ v[:, :valid]).transpose(0, 1))
    return torch.cat(outputs)


def _compare(kernel: str, found: Tensor, expected: Tensor) -> None:
    apart = float((found - expected).abs().max() / expected.abs().max())
    if not apart <= _TOLERANCE:
        raise RuntimeError(f"{kernel} is {apart:.1%} apart from PyTorch's")
