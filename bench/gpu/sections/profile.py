"""Where the time of a pass goes: kernels by their time, the gaps between them, and kernels in other tiles."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bench.gpu.models import backend, build, clips_of, encode_all, mixes, packs_of
from bench.gpu.section import Section, run
from w2vbert.encoder.layout import Layout
from w2vbert.model import Wav2Vec2BertModel

TOP = 25


def measure(section: Section) -> None:
    with torch.inference_mode():
        model = build(section)
        packs = packs_of(clips_of(mixes(section)["books"], section))
        for backed in ("torch", "triton"):
            with backend(backed):
                _profile(section, model, packs, backed)
        _tiles(section, model)


def _profile(section: Section, model: Wav2Vec2BertModel, packs: Any, backed: str) -> None:
    on_gpu = section.device.type == "cuda"
    wall = section.median(lambda: encode_all(model, packs), repeats=3)
    watched = [ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    with profile(activities=watched) as found:
        encode_all(model, packs)
        if on_gpu:
            torch.cuda.synchronize()
    field = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = sorted(found.key_averages(), key=lambda event: -getattr(event, field))
    busy = sum(getattr(event, field) for event in events) / 1e3
    section.add(
        backend=backed, wall_ms=round(wall, 2), busy_ms=round(busy, 2), kernels=sum(e.count for e in events)
    )
    for event in events[:TOP]:
        section.add(
            backend=backed,
            kernel=event.key[:100],
            ms=round(getattr(event, field) / 1e3, 3),
            calls=event.count,
        )


def _tiles(section: Section, model: Wav2Vec2BertModel) -> None:
    """The kernels in the tiles that they use and in others."""
    from w2vbert.kernels import attention, convolution

    layer: Any = model.encoder.layers[0]
    lengths = mixes(section)["books"]
    layout = Layout(lengths, section.device)
    shape = (layout.total, layer.self_attn.num_heads, layer.self_attn.head_size)
    projected = [torch.randn(shape, device=section.device).to(section.dtype) for _ in range(3)]
    band = layer.self_attn.scheme.band(layer.self_attn, projected[0])
    assert band is not None
    used = attention.tiles_for(section.dtype, shape[2])
    others = [
        (128, 64, 8, 3),
        (128, 32, 4, 3),
        (64, 32, 4, 3),
        (64, 64, 4, 3),
        (128, 32, 8, 2),
        (128, 32, 8, 4),
    ]
    for sizes in [used] if section.smoke else [used, *(attention.Tiles(*sizes) for sizes in others)]:
        run_one = partial(attention.attention, projected, band, layout, 0.125, sizes)
        spent = section.median(run_one, repeats=3)
        section.add(what="attention", tiles=list(sizes), used=sizes == used, ms=round(spent, 3))
    frames = torch.randn(layout.total, model.config.hidden_size, device=section.device).to(section.dtype)
    conv, norm = layer.conv_module.depthwise_conv.weight, layer.conv_module.depthwise_layer_norm
    some = [convolution.TILES, *(convolution.Tiles(*sizes) for sizes in ((8, 8), (16, 8), (8, 16), (4, 4)))]
    for tiles in some[:1] if section.smoke else some:
        run_other = partial(convolution.convolution, frames, conv, norm, layout, tiles)
        spent = section.median(run_other, repeats=3)
        section.add(what="convolution", tiles=list(tiles), used=tiles == some[0], ms=round(spent, 3))


if __name__ == "__main__":
    run("profile", measure)
