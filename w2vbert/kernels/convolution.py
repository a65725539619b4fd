"""Causal depthwise convolution over packed sequences, layer normalisation and SiLU, as one kernel.

The gate (GLU) stays with PyTorch: in here each of the `taps` frames that read a value would compute its
sigmoid again, which costs more than the pass over memory that is saved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

if TYPE_CHECKING:
    from w2vbert.encoder.layout import Layout


class Tiles(NamedTuple):
    """Frames that a program takes, a power of two, and its warps; results are the same."""

    frames: int
    warps: int


TILES = Tiles(16, 16)
WIDEST = 2048  # a program holds all channels of its frames in registers, which the norm needs


def convolution(
    frames: Tensor, weight: Tensor, norm: nn.LayerNorm, layout: Layout, tiles: Tiles = TILES
) -> Tensor:
    """`silu(norm(conv(frames)))`, where a frame sees itself and those before it in its own sequence.

    Args:
        frames: (total, width), of rows that are contiguous; width at most `WIDEST`.
        weight: (width, 1, taps), of a depthwise convolution without bias.
        norm: over the width.
        layout: of the pack, without gaps (`places`).

    Returns:
        (total, width) of the frames' type; what lies between is float32.
    """
    total, width = frames.shape
    by_tap = weight.squeeze(1).t().contiguous()  # channels lie side by side, as in the frames
    output = torch.empty(frames.shape, dtype=frames.dtype, device=frames.device)
    with torch.cuda.device_of(frames):  # Triton launches on the current device, whatever the tensors'
        _convolve[(triton.cdiv(total, tiles.frames),)](
            frames,
            by_tap,
            norm.weight,
            norm.bias,
            layout.ordinals,
            output,
            total,
            frames.stride(0),
            norm.eps,
            WIDTH=width,
            COLUMNS=triton.next_power_of_2(width),
            TAPS=by_tap.shape[0],
            FRAMES=tiles.frames,
            num_warps=tiles.warps,
        )
    return output


@triton.jit
def _convolve(
    frames, by_tap, gain, shift, ordinals, output, total, stride, eps,
    WIDTH: tl.constexpr, COLUMNS: tl.constexpr, TAPS: tl.constexpr, FRAMES: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * FRAMES + tl.arange(0, FRAMES)
    columns = tl.arange(0, COLUMNS)
    row_in = rows < total
    column_in = columns < WIDTH
    ordinal = tl.load(ordinals + rows, mask=row_in, other=0)

    sums = tl.zeros((FRAMES, COLUMNS), tl.float32)
    for tap in range(TAPS):
        back = TAPS - 1 - tap
        inside = (row_in & (ordinal >= back))[:, None] & column_in[None, :]
        seen = tl.load(frames + (rows - back)[:, None] * stride + columns[None, :], mask=inside, other=0.0)
        weight = tl.load(by_tap + tap * WIDTH + columns, mask=column_in, other=0.0)
        sums += seen.to(tl.float32) * weight.to(tl.float32)[None, :]

    mean = tl.sum(sums, 1) / WIDTH
    centred = tl.where(column_in[None, :], sums - mean[:, None], 0.0)
    normal = centred * tl.rsqrt(tl.sum(centred * centred, 1) / WIDTH + eps)[:, None]
    gains = tl.load(gain + columns, mask=column_in, other=0.0).to(tl.float32)
    shifts = tl.load(shift + columns, mask=column_in, other=0.0).to(tl.float32)
    normal = normal * gains[None, :] + shifts[None, :]
    activated = normal * tl.sigmoid(normal)
    places = output + rows[:, None] * WIDTH + columns[None, :]
    tl.store(places, activated.to(output.dtype.element_ty), mask=row_in[:, None] & column_in[None, :])
