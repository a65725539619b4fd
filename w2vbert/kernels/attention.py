"""Self-attention over packed sequences with a band of relative keys, as one kernel.

Source: the online softmax of Milakov & Gimelshein 2018 (arXiv:1805.02867) in the blocks of FlashAttention
(Dao et al. 2022, arXiv:2205.14135), with the relative keys of Shaw et al. 2018 (arXiv:1803.02155). Neither
scores nor positional terms exist in memory, and no frame is computed that is none of a sequence's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from w2vbert.encoder.layout import Layout
    from w2vbert.encoder.positions import Band


class Tiles(NamedTuple):
    """How much of the work a program takes at a time; results differ in rounding only.

    Attributes:
        queries, keys: frames, powers of two from 16 on.
        warps: of a program.
        stages: tiles of keys that are under way at a time.
    """

    queries: int
    keys: int
    warps: int
    stages: int


LARGEST_HEAD = 128


def tiles_for(dtype: torch.dtype, head_size: int) -> Tiles:
    """What fits the registers of a program, without spills, and the shared memory of the smallest GPUs."""
    if dtype == torch.float32:
        return Tiles(32, 32, 4, 2) if head_size <= 64 else Tiles(32, 16, 8, 2)
    return Tiles(128, 32, 8, 3) if head_size <= 64 else Tiles(64, 32, 8, 3)


def attention(
    projected: Sequence[Tensor], band: Band, layout: Layout, scale: float, tiles: Tiles | None = None
) -> Tensor:
    """`softmax(scale * (q_i . k_j + p_i[clip(j - i, -left, right)])) v` within each sequence of a pack.

    Args:
        projected: queries, keys and values, each (total, heads, head_size), of rows that are contiguous.
        band: the products p of the queries with the relative keys, unscaled.
        layout: of the pack, without gaps (`places`); keys that are not valid are not looked at.
        scale: factor on all scores, usually head_size ** -0.5.
        tiles: what `tiles_for` says when omitted.

    Returns:
        (total, heads, head_size).
    """
    query, key, value = projected
    _, heads, head_size = query.shape
    tiles = tiles or tiles_for(query.dtype, head_size)
    blocks = layout.blocks(tiles.queries)
    output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"  # whichever of PyTorch's switches was used
    with torch.cuda.device_of(query):  # Triton launches on the current device, whatever the tensors'
        _attend[(len(blocks), heads)](
            query,
            key,
            value,
            band.products,
            output,
            blocks,
            query.stride(0),
            key.stride(0),
            value.stride(0),
            *band.products.stride()[:2],
            output.stride(0),
            scale * math.log2(math.e),  # powers of two are what the hardware has
            HEAD=head_size,
            COLUMNS=max(16, triton.next_power_of_2(head_size)),
            LEFT=band.left,
            RIGHT=band.right,
            QUERIES=tiles.queries,
            KEYS=tiles.keys,
            PRECISION="tf32" if tf32 else "ieee",
            num_warps=tiles.warps,
            num_stages=tiles.stages,
        )
    return output


@triton.jit
def _attend(
    query, key, value, products, output, blocks,
    query_stride, key_stride, value_stride, product_stride, product_head_stride, output_stride,
    scale,
    HEAD: tl.constexpr, COLUMNS: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of queries of one sequence and one head."""
    block = blocks + 4 * tl.program_id(0)
    head = tl.program_id(1)
    offset = tl.load(block).to(tl.int64)
    first = tl.load(block + 1)
    length = tl.load(block + 2)
    valid = tl.load(block + 3)

    # From here on 32 bits count addresses, from the block's first query and the sequence's first key.
    query += (offset + first) * query_stride + head * HEAD
    key += offset * key_stride + head * HEAD
    value += offset * value_stride + head * HEAD
    products += (offset + first) * product_stride + head * product_head_stride
    output += (offset + first) * output_stride + head * HEAD

    rows = tl.arange(0, QUERIES)
    columns = tl.arange(0, COLUMNS)
    row_in = first + rows < length
    q_in = _inside(row_in[:, None], columns[None, :], HEAD, COLUMNS)
    q = tl.load(query + rows[:, None] * query_stride + columns[None, :], mask=q_in, other=0.0)

    top = tl.full((QUERIES,), -float("inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    sums = tl.zeros((QUERIES, COLUMNS), tl.float32)
    # Keys that lie left of the band for every query of the block, then those in it for some, then the rest:
    # only in the middle part is a term looked up for each pair.
    left_end = tl.minimum(tl.maximum(first - LEFT + 1, 0) // KEYS * KEYS, valid)
    band_end = tl.minimum(tl.cdiv(first + QUERIES - 1 + RIGHT, KEYS) * KEYS, valid)
    for part in tl.static_range(3):
        if part == 0:
            start, stop = 0, left_end
        elif part == 1:
            start, stop = left_end, band_end
        else:
            start, stop = band_end, valid
        top, total, sums = _over_keys(
            q, key, value, products, key_stride, value_stride, product_stride, scale, first, row_in,
            start, stop, valid, top, total, sums,
            part, HEAD, COLUMNS, LEFT, RIGHT, KEYS, PRECISION,
        )  # fmt: skip
    sums = sums / total[:, None]
    tl.store(
        output + rows[:, None] * output_stride + columns[None, :], sums.to(output.dtype.element_ty), mask=q_in
    )


@triton.jit
def _over_keys(
    q, key, value, products, key_stride, value_stride, product_stride, scale, first, row_in,
    start, stop, valid, top, total, sums,
    PART: tl.constexpr, HEAD: tl.constexpr, COLUMNS: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Goes on with the softmax over the keys from `start` to `stop`, left of, in or right of the band."""
    columns = tl.arange(0, COLUMNS)
    rows = tl.arange(0, q.shape[0])
    if PART == 0:
        term = tl.load(products + rows * product_stride, mask=row_in, other=0.0).to(tl.float32)[:, None]
    elif PART == 2:
        last = products + LEFT + RIGHT
        term = tl.load(last + rows * product_stride, mask=row_in, other=0.0).to(tl.float32)[:, None]
    for tile in range(start, stop, KEYS):
        keys = tile + tl.arange(0, KEYS)
        key_in = keys < valid
        k_in = _inside(key_in[None, :], columns[:, None], HEAD, COLUMNS)
        v_in = _inside(key_in[:, None], columns[None, :], HEAD, COLUMNS)
        k = tl.load(key + keys[None, :] * key_stride + columns[:, None], mask=k_in, other=0.0)
        v = tl.load(value + keys[:, None] * value_stride + columns[None, :], mask=v_in, other=0.0)
        scores = tl.dot(q, k, input_precision=PRECISION)
        if PART == 1:
            distance = keys[None, :] - (first + rows)[:, None]
            place = tl.minimum(tl.maximum(distance + LEFT, 0), LEFT + RIGHT)
            of_pair = products + (rows[:, None] * product_stride + place)
            scores += tl.load(of_pair, mask=row_in[:, None], other=0.0).to(tl.float32)
        else:
            scores += term
        scores = tl.where(key_in[None, :], scores * scale, -float("inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        shrunk = tl.exp2(top - higher)
        total = total * shrunk + tl.sum(weights, 1)
        sums = sums * shrunk[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
        top = higher
    return top, total, sums


@triton.jit
def _inside(rows_in, columns, SIZE: tl.constexpr, PADDED: tl.constexpr):
    """Which places exist, of `SIZE` columns laid out in `PADDED`."""
    inside = rows_in
    if SIZE < PADDED:
        inside = rows_in & (columns < SIZE)
    return inside
